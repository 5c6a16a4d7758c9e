"""What a transformer computes between its products, each in one pass over the stream.

    sums, normed = add_norm(x, branch, bias, norm)      # x + (branch + bias), and its norm
    x = add_bias(sums, branch, bias)
    activated = bias_gelu(hidden, bias)

A CPU that learns runs them as compiled loops (compiled_fused.py), where torch copies the bias
before each product, converts between float32 and bfloat16 apart, and passes over each gradient once
more for the bias. Branches come from products without their bias, in the dtype of products; the
stream stays float32, and all arithmetic is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from armchair.core.device import COMPILED_DTYPES, product_dtype


def is_fused(x: Float[Tensor, "*B D"]) -> bool:
    """Whether these are for this stream: on a CPU, with a gradient, in float32."""
    learns = x.device.type == "cpu" and torch.is_grad_enabled()
    return learns and x.dtype == torch.float32 and product_dtype(x.device) in COMPILED_DTYPES


def add_norm(
    x: Float[Tensor, "*B D"],
    branch: Float[Tensor, "*B D"] | None,
    bias: Float[Tensor, " D"] | None,
    norm: nn.LayerNorm,
) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D"]]:
    """Add a branch to the stream, and normalise.

    Args:
        x: The stream.
        branch: Without its bias; None for none.
        bias: Of the branch.
        norm: Of the last dimension, with a gain and a bias.

    Returns:
        The stream with the branch, which is to be used in place of `x` also where there is none;
        and its norm, in the dtype of products.
    """
    dtype = product_dtype(x.device)
    return _AddNorm.apply(x, branch, bias, norm.weight, norm.bias, norm.eps, dtype)


def add_bias(
    x: Float[Tensor, "*B D"], branch: Float[Tensor, "*B D"], bias: Float[Tensor, " D"]
) -> Float[Tensor, "*B D"]:
    """The same without the norm."""
    return _AddBias.apply(x, branch, bias)


def bias_gelu(x: Float[Tensor, "*B D"], bias: Float[Tensor, " D"]) -> Float[Tensor, "*B D"]:
    """GELU of x and a bias, in the dtype of x."""
    return _BiasGELU.apply(x, bias)


def _totals(rows: int, *shape: int) -> Tensor:
    """Room for sums over runs of rows."""
    from armchair.nn.compiled_fused import RUN  # imports numba

    return torch.empty(-(-rows // RUN), *shape, dtype=torch.float32, device="cpu")


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor | None,
        bias: Tensor | None,
        gain: Tensor,
        shift: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        from armchair.core.threads import share
        from armchair.nn.compiled_fused import add_norm

        x, nothing = x.contiguous(), x.new_empty(0)
        sums = x if branch is None else torch.empty_like(x)
        normed, moments = torch.empty_like(x, dtype=dtype), x.new_empty(*x.shape[:-1], 2)
        added = (nothing, nothing) if branch is None else (branch.contiguous(), bias)
        written = nothing if branch is None else sums
        share(add_norm, x, *added, gain, shift, np.float32(eps), written, normed, moments)
        ctx.save_for_backward(sums, moments, gain)
        ctx.branch_dtype = None if branch is None else branch.dtype
        ctx.set_materialize_grads(False)
        return sums, normed

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, d_sums: Tensor | None, d_normed: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        from armchair.core.threads import share
        from armchair.nn.compiled_fused import add_norm_backward

        sums, moments, gain = ctx.saved_tensors
        nothing = sums.new_empty(0)
        d_normed = torch.zeros_like(sums) if d_normed is None else d_normed.contiguous()
        d_x, d_branch = torch.empty_like(sums), None
        if ctx.branch_dtype is not None:
            d_branch = torch.empty_like(sums, dtype=ctx.branch_dtype)
        totals = _totals(sums.numel() // len(gain), 3, len(gain))
        others = nothing if d_sums is None else d_sums.contiguous()
        to_branch = nothing if d_branch is None else d_branch
        share(add_norm_backward, sums, moments, gain, others, d_normed, d_x, to_branch, totals)
        d_bias, d_gain, d_shift = totals.sum(0)
        return d_x, d_branch, None if d_branch is None else d_bias, d_gain, d_shift, None, None


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, bias: Tensor) -> Tensor:
        from armchair.core.threads import share
        from armchair.nn.compiled_fused import add_bias

        sums = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        share(add_bias, x.contiguous(), branch.contiguous(), bias, sums)
        ctx.branch_dtype = branch.dtype
        return sums

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, d_sums: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        from armchair.core.threads import share
        from armchair.nn.compiled_fused import add_bias_backward

        d_sums = d_sums.contiguous()
        dim = d_sums.shape[-1]
        d_branch = torch.empty_like(d_sums, dtype=ctx.branch_dtype)
        totals = _totals(d_sums.numel() // dim, dim)
        share(add_bias_backward, d_sums, dim, d_branch, totals)
        return d_sums, d_branch, totals.sum(0)


class _BiasGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        from armchair.core.threads import share
        from armchair.nn.compiled_fused import bias_gelu

        x = x.contiguous()
        activated = torch.empty_like(x)
        share(bias_gelu, x, bias, activated)
        ctx.save_for_backward(x, bias)
        return activated

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, d_activated: Tensor
    ) -> tuple[Tensor, Tensor]:
        from armchair.core.threads import share
        from armchair.nn.compiled_fused import bias_gelu_backward

        x, bias = ctx.saved_tensors
        d_x, totals = torch.empty_like(x), _totals(x.numel() // len(bias), len(bias))
        share(bias_gelu_backward, x, bias, d_activated.contiguous(), d_x, totals)
        return d_x, totals.sum(0)
