"""The cross-entropy of a linear layer's logits, without ever holding all of them.

    loss = linear_cross_entropy(hidden, head, targets, weights)     # sum of weights · nats

A head over thousands of classes gives more logits than all the rest of a transformer gives numbers.
On a CPU that learns they are made for some hundred rows at a time; one compiled pass over these
(compiled_cross_entropy.py) gives the loss and turns them into their gradient, which is multiplied
on at once. All of it is float32, under autocast too.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_ROWS = 512  # at a time


def linear_cross_entropy(
    x: Float[Tensor, "R D"],
    head: nn.Linear,
    targets: Int64[Tensor, " R"],
    weights: Float[Tensor, " R"],
) -> Float[Tensor, ""]:
    """The weighted sum of rows' cross-entropies, in nats.

    Args:
        x: What the head is applied to.
        head: From D numbers to V logits.
        targets: The true class of each row, in [0, V).
        weights: Of each row; those of 0 cost nothing on a CPU. They have no gradient.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.is_grad_enabled():
        return linear_cross_entropy_reference(x, head, targets, weights)
    counted = weights.nonzero()[:, 0]
    if len(counted) < len(weights):
        x, targets, weights = x[counted], targets[counted], weights[counted]
    return _LinearCrossEntropy.apply(x, head.weight, head.bias, targets, weights)


def linear_cross_entropy_reference(
    x: Float[Tensor, "R D"],
    head: nn.Linear,
    targets: Int64[Tensor, " R"],
    weights: Float[Tensor, " R"],
) -> Float[Tensor, ""]:
    """The same in torch's own operations, on any device."""
    with torch.autocast(x.device.type, enabled=False):
        nats = F.cross_entropy(head(x), targets, reduction="none")
    return (nats * weights).sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients for a loss of which this is all; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        from armchair.core.jit import share  # imports numba
        from armchair.nn.compiled_cross_entropy import RUN, cross_entropy

        d_x, d_weight, d_bias = (
            torch.empty_like(x),
            torch.zeros_like(weight),
            torch.zeros_like(bias),
        )
        nats, classes = torch.empty_like(weights), len(weight)
        buffer = x.new_empty(min(_ROWS, len(x)), classes)
        totals = x.new_empty(-(-len(buffer) // RUN), classes)
        with torch.autocast("cpu", enabled=False):
            for start in range(0, len(x), _ROWS):
                rows = slice(start, min(start + _ROWS, len(x)))
                logits = torch.mm(x[rows], weight.T, out=buffer[: rows.stop - start])
                runs = totals[: -(-len(logits) // RUN)]
                of_rows = (targets[rows], weights[rows].contiguous(), nats[rows])
                share(cross_entropy, logits, bias, *of_rows, runs)
                torch.mm(logits, weight, out=d_x[rows])
                d_weight.addmm_(logits.T, x[rows])
                d_bias += runs.sum(0)
        ctx.save_for_backward(d_x, d_weight, d_bias)
        return (nats.double() * weights).sum().float()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        d_x, d_weight, d_bias = (part * gradient for part in ctx.saved_tensors)
        return d_x, d_weight, d_bias, None, None
