"""The cross-entropy of a linear layer's logits, without ever holding all of them.

    loss = linear_cross_entropy(hidden, head, targets, weights)     # sum of weights · nats

A head over thousands of classes gives more logits than all the rest of a transformer gives numbers.
On a CPU that learns they are made for some hundred rows at a time; one compiled pass over these
(compiled_cross_entropy.py) gives the loss and turns them into their gradient, which is multiplied
on at once. All of it is float32, under autocast too; but where that has tiles to multiply in
(amx_products.py), logits are products of two parts of bfloat16 each, within 2^-16 of their terms,
and their gradient is rounded to bfloat16 before it is multiplied.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from armchair.core.device import product_dtype

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
    loss = _TiledLinearCrossEntropy if _is_for_tiles(x) else _LinearCrossEntropy
    return loss.apply(x, head.weight, head.bias, targets, weights)


def _is_for_tiles(x: Tensor) -> bool:
    if product_dtype(x.device) != torch.bfloat16 or not len(x):
        return False
    from armchair.nn.amx import BLOCK, has_amx  # imports numba

    return has_amx() and x.shape[1] % BLOCK == 0


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


class _Scaled(torch.autograd.Function):
    """The gradients for a loss of which this is all; the backward pass scales them."""

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        d_x, d_weight, d_bias = (part * gradient for part in ctx.saved_tensors)
        return d_x, d_weight, d_bias, None, None


class _LinearCrossEntropy(_Scaled):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        from armchair.core.threads import share  # imports numba
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
                share(cross_entropy, logits, bias, *of_rows, logits, runs)
                torch.mm(logits, weight, out=d_x[rows])
                d_weight.addmm_(logits.T, x[rows])
                d_bias += runs.sum(0)
        ctx.save_for_backward(d_x, d_weight, d_bias)
        return (nats.double() * weights).sum().float()


class _TiledLinearCrossEntropy(_Scaled):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        from armchair.core.threads import room, share
        from armchair.nn.amx import BLOCK, apart
        from armchair.nn.amx_products import (
            SQUARE,
            groups_of,
            multiply,
            pack,
            split,
            weight_gradient,
        )
        from armchair.nn.compiled_cross_entropy import RUN, cross_entropy

        classes, dim = weight.shape
        filled = apart(classes)
        low = F.pad(bias.detach(), (0, filled - classes), value=-1e30)
        columns, turned = (weight.new_empty(n, filled, dim, dtype=torch.bfloat16) for n in (2, 1))
        share(pack, weight, classes, dim, 2, room(SQUARE, torch.bfloat16), columns, turned)
        most = min(_ROWS, len(x) + -len(x) % BLOCK)
        logits, totals = x.new_empty(most, filled), x.new_empty(-(-most // RUN), filled)
        gradients = torch.empty_like(logits, dtype=torch.bfloat16)
        parts = x.new_empty(most, 2 * dim, dtype=torch.bfloat16)
        groups = groups_of(dim, filled, torch.get_num_threads())
        rooms = room(groups.halves, torch.bfloat16), room(groups.floats)
        d_x = x.new_empty(len(x) + -len(x) % BLOCK, dim)
        d_weight, d_bias = x.new_empty(filled, dim), torch.zeros_like(low)
        nats = torch.empty_like(weights)
        for start in range(0, len(x), _ROWS):
            rows = slice(start, min(start + _ROWS, len(x)))
            count = rows.stop - start
            whole = count + -count % BLOCK
            of_x = F.pad(x[rows], (0, 0, 0, whole - count))
            share(split, of_x, whole, dim, parts)
            share(multiply, parts, whole, dim, True, columns, filled, logits)
            runs = totals[: -(-count // RUN)]
            of_rows = (targets[rows], weights[rows].contiguous(), nats[rows])
            share(cross_entropy, logits, low, *of_rows, gradients, runs)
            gradients[count:whole] = 0
            share(multiply, gradients, whole, filled, False, turned, dim, d_x[start:])
            of_rows = (of_x.bfloat16(), gradients, whole, dim, filled, groups, start > 0)
            share(weight_gradient, *of_rows, *rooms, d_weight)
            d_bias += runs.sum(0)
        ctx.save_for_backward(d_x[: len(x)], d_weight[:classes], d_bias[:classes])
        return (nats.double() * weights).sum().float()
