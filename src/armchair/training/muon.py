"""Muon: steps whose singular values are all near 1, for matrices and kernels of hidden layers.

    M ← 0.95·M + 0.05·G
    W ← (1 - lr·decay)·W - lr · 0.2·sqrt(max(rows, columns)) · orthogonal(0.05·G + 0.95·M)

A kernel is a matrix with a row for each output channel. The factor gives the step AdamW's root mean
square, so that one learning rate serves both.

Source: "Muon: An optimizer for hidden layers in neural networks" (Jordan, 2024), and for the factor
"Muon is Scalable for LLM Training" (arXiv 2502.16982), section 2.2. `torch.optim.Muon`, whose steps
these are, takes matrices alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from armchair.core.device import Precision, resolve_precision
from armchair.core.errors import ConfigError

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic, steepest at 0
_ITERATIONS = 5
_WIDE = 3  # times as many columns as rows, from where on the small matrices are the cheaper ones


def orthogonalize(matrix: Float[Tensor, "R C"], dtype: torch.dtype) -> Float[Tensor, "R C"]:
    """The matrix with its singular values moved to about 1 (0.7 to 1.2).

    Newton-Schulz: X ← FX with F = aI + bXXᵀ + c(XXᵀ)², from X of norm 1, on the side with fewer
    rows. Of a wide matrix all factors are found and multiplied before they meet it, as XXᵀ, which
    is small, becomes F XXᵀ F. Bfloat16 has too few digits for that.

    Args:
        matrix: Any matrix.
        dtype: Of the products, and of the result.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype)
    x = x.T if tall else x
    x = x / x.norm().clamp_min(1e-7)
    wide = x.shape[1] >= _WIDE * x.shape[0]
    x = _by_its_gram(x) if wide and dtype.itemsize >= torch.float32.itemsize else _directly(x)
    return x.T if tall else x


def _directly(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_its_gram(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    gram, product = x @ x.T, None
    for left in reversed(range(_ITERATIONS)):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two axes and more; the first axis gives the rows.

    Args:
        parameters: What it moves.
        lr: Step size, as for AdamW.
        weight_decay: Decoupled decay.
        momentum: Share of the momentum that is kept; Nesterov's look ahead is taken.
        precision: Of the products that find a step. "bf16" is the source's; "auto" takes it where
            the hardware has it, and float32 elsewhere: there a step in bfloat16 takes up to 29
            times as long (benchmarks/updates.py).

    Raises:
        ConfigError: A parameter is a vector or a number.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        precision: Precision = "auto",
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(parameters, settings)
        self.precision: Precision = precision
        for parameter in self.param_groups[0]["params"]:
            if parameter.ndim < 2:
                raise ConfigError("parameters", got=parameter.shape, expected="two axes or more")

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learning_rate, keep = group["lr"], group["momentum"]
            dtype = resolve_precision(self.precision, group["params"][0].device)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - keep)
                step = orthogonalize(parameter.grad.lerp(momentum, keep).flatten(1), dtype)
                scale = 0.2 * math.sqrt(max(step.shape))
                parameter.mul_(1 - learning_rate * group["weight_decay"])
                parameter.add_(step.reshape(parameter.shape), alpha=-learning_rate * scale)
        return loss
