"""Products of a stream with a weight, whose gradient a CPU that learns in bfloat16 sums in tiles.

A library is slow at sums over the rows of a stream, of which there are thousands, and rounds them.
Here they are summed in float32 (amx_products.py), which is how gradients of weights are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from armchair.core.device import product_dtype


def product(x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"]) -> Float[Tensor, "*B O"]:
    """What a linear layer gives, less its bias, in the dtype of products.

    Args:
        x: The stream.
        weight: Of the layer.
    """
    if _is_for_tiles(x, weight):
        return _Product.apply(x, weight)
    return F.linear(x, weight)


def _is_for_tiles(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    if product_dtype(x.device, x.dtype) != torch.bfloat16 or weight.dtype != torch.float32:
        return False
    from armchair.nn.amx import BLOCK, has_amx  # imports numba

    sizes = (x.shape[:-1].numel(), *weight.shape)
    return has_amx() and all(size and size % BLOCK == 0 for size in sizes)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows, in_bfloat16 = x.to(torch.bfloat16).contiguous(), weight.to(torch.bfloat16)
        ctx.save_for_backward(rows, in_bfloat16)
        ctx.x_dtype = x.dtype
        return F.linear(rows, in_bfloat16)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        from armchair.core.threads import room, share
        from armchair.nn.amx_products import groups_of, weight_gradient

        x, weight = ctx.saved_tensors
        d_products, d_x, d_weight = gradient.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            d_x = (d_products @ weight).to(ctx.x_dtype)
        if ctx.needs_input_grad[1]:
            outputs, inputs = weight.shape
            groups = groups_of(inputs, outputs, torch.get_num_threads())
            rooms = room(groups.halves, torch.bfloat16), room(groups.floats)
            d_weight = torch.empty(outputs, inputs, dtype=torch.float32, device="cpu")
            sizes = (x.numel() // inputs, inputs, outputs)
            share(weight_gradient, x, d_products, *sizes, groups, False, *rooms, d_weight)
        return d_x, d_weight
