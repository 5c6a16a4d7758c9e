"""Exact masked attention over blocks of queries: what a CPU trains with.

The stream's text and its image are each filled up to whole panels of sixteen places; column layers
first put the image in column order, where a column is a stretch. A block of queries then sees some
of the text's panels, and one stretch of the image's. The blocks are read off the dense mask: the
two cannot disagree. Nothing is kept for the backward pass but queries, keys and values.

Under autocast these come in bfloat16, and outputs and gradients go in it; all between is float32
(compiled_attention.py). Where a processor multiplies bfloat16 in tiles, and heads fill them,
weights are rounded too, a block has 32 queries, and of each its largest score and the sum of its
weights are kept as well (amx_attention.py).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from armchair.nn.masks import AttentionPattern, dense_mask, plan_order

_BLOCK = 16  # queries, and places of a panel


def blocked_attention(
    qkv: Float[Tensor, "B L D3"],
    pattern: AttentionPattern,
    *,
    num_heads: int,
    bias: Float[Tensor, " D3"] | None = None,
) -> Float[Tensor, "B L D"]:
    """Attend over the whole stream with one softmax, exactly as the dense mask says.

    Args:
        qkv: Queries, keys, and values, one after the other in the last dimension, on a CPU, in one
            of `COMPILED_DTYPES`.
        pattern: What each token sees.
        num_heads: Heads N; D is a multiple of it.
        bias: Added to `qkv`, in float32; None for none.

    Returns:
        The heads' outputs side by side, in the dtype of `qkv`.
    """
    if bias is None:
        bias = qkv.new_zeros(qkv.shape[2], dtype=torch.float32)
    is_tiled = _is_for_tiles(qkv, num_heads)
    return _BlockedAttention.apply(qkv, bias, pattern, num_heads, is_tiled)


class BlockPlan(NamedTuple):
    """Who is multiplied with whom. Shared by all who ask: never written to.

    Attributes:
        order: P: the token at each place, or -1 where a place only fills up a panel.
        blocks: For each block six numbers; see `compiled_attention.attend`.
        masks: 0 or -inf for each query and place of each block, one block after the other.
    """

    order: np.ndarray
    blocks: np.ndarray
    masks: np.ndarray


@functools.lru_cache(maxsize=64)
def block_plan(pattern: AttentionPattern) -> BlockPlan:
    """Cut the stream into blocks of sixteen queries."""
    order, blocks = _cut(pattern, _BLOCK)
    numbers, masks, begin = [], [], 0
    for block in blocks:
        start, count, *places = block.numbers
        numbers.append([start, count, *places, begin])
        masks.append(np.where(block.sees, np.float32(0), np.float32(-np.inf)).flatten())
        begin += block.sees.size
    return BlockPlan(order, np.array(numbers), np.concatenate(masks))


class TilePlan(NamedTuple):
    """The same for tiles, in blocks of 32 queries and panels of 32 places.

    Attributes:
        order: See `BlockPlan`.
        blocks: For each block five numbers; see `amx_attention.attend`.
        bits: For each half of a block's queries, and place: which of the half may see it.
    """

    order: np.ndarray
    blocks: np.ndarray
    bits: np.ndarray


@functools.lru_cache(maxsize=64)
def tile_plan(pattern: AttentionPattern) -> TilePlan:
    """Cut the stream into blocks of 32 queries."""
    order, blocks = _cut(pattern, 2 * _BLOCK)
    numbers, bits, begin = [], [], 0
    for block in blocks:
        start, count, *places = block.numbers
        numbers.append([start, *places, begin])
        sees = np.pad(block.sees, ((0, 2 * _BLOCK - count), (0, 0)))
        for half in np.split(sees, 2):
            of_places = np.ascontiguousarray(half.T)
            bits.append(np.packbits(of_places, axis=1, bitorder="little").view(np.uint16)[:, 0])
            begin += len(bits[-1])
    return TilePlan(order, np.array(numbers), np.concatenate(bits))


class _Block(NamedTuple):
    numbers: tuple[int, ...]  # see `BlockPlan`, all but the last
    sees: np.ndarray  # queries, places


def _cut(pattern: AttentionPattern, size: int) -> tuple[np.ndarray, list[_Block]]:
    """The order of places, and blocks of `size` queries that see whole panels of as many places."""
    text = pattern.text_length
    tokens = plan_order(pattern).numpy()
    order = np.concatenate([_filled(tokens[:text], size), _filled(tokens[text:], size)])
    sees = np.zeros((len(order), len(order)), dtype=bool)
    real = order >= 0
    sees[np.ix_(real, real)] = dense_mask(pattern).numpy()[np.ix_(order[real], order[real])]
    of_text = -(-text // size) * size
    blocks = []
    for start in range(0, len(order), size):
        count = int(real[start : start + size].sum())
        rows = sees[start : start + count]
        seen = np.flatnonzero(rows.any(axis=0))
        first, stop = seen[seen >= of_text][[0, -1]] if seen[-1] >= of_text else (of_text, 0)
        first = first // size * size
        others = max(0, -(-(stop + 1) // size) * size - first)
        in_text = -(-(seen[seen < of_text][-1] + 1) // size) * size
        mask = np.concatenate([rows[:, :in_text], rows[:, first : first + others]], axis=1)
        blocks.append(_Block((start, count, in_text, first, others), mask))
    return order, blocks


def _filled(tokens: np.ndarray, size: int) -> np.ndarray:
    return np.pad(tokens, (0, -len(tokens) % size), constant_values=-1)


def _is_for_tiles(qkv: Tensor, num_heads: int) -> bool:
    if qkv.dtype != torch.bfloat16:
        return False
    from armchair.nn.amx import BLOCK, has_amx  # imports numba

    return has_amx() and qkv.shape[-1] % (3 * num_heads * BLOCK) == 0


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        bias: Tensor,
        pattern: AttentionPattern,
        num_heads: int,
        is_tiled: bool,
    ) -> Tensor:
        from armchair.core.threads import share  # imports numba

        loops, qkv = _loops(is_tiled), qkv.contiguous()
        batch, length, dim = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        plan = tile_plan(pattern) if is_tiled else block_plan(pattern)
        layout = loops.layout_of(batch, length, num_heads, dim // num_heads, len(plan.order))
        factor = np.float32((dim // num_heads) ** -0.5)
        outputs, kept = qkv.new_empty(batch, length, dim), []
        if is_tiled:
            shape = (batch, num_heads, 2 * len(plan.order))
            kept = [torch.empty(shape, dtype=torch.float32, device="cpu")]
        rooms = _rooms(loops.sizes_forward(layout))
        share(loops.attend, qkv, bias.float(), *plan, layout, factor, *rooms, outputs, *kept)
        ctx.save_for_backward(qkv, bias, *kept)
        ctx.loops, ctx.plan, ctx.layout, ctx.factor = loops, plan, layout, factor
        return outputs

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        from armchair.core.threads import share

        qkv, bias, *kept = ctx.saved_tensors
        rooms = _rooms(ctx.loops.sizes_backward(ctx.layout))
        d_qkv = torch.empty_like(qkv)
        d_bias = torch.zeros(len(qkv), len(bias), dtype=torch.float32, device="cpu")
        rest = (ctx.layout, ctx.factor, *rooms, *kept, gradient.contiguous(), d_qkv, d_bias)
        share(ctx.loops.attend_backward, qkv, bias.float(), *ctx.plan, *rest)
        return d_qkv, d_bias.sum(0).to(bias), None, None, None


def _loops(is_tiled: bool) -> Any:
    """The module that has them."""
    if is_tiled:
        from armchair.nn import amx_attention as loops
    else:
        from armchair.nn import compiled_attention as loops
    return loops


def _rooms(sizes: dict[torch.dtype, int]) -> list[Tensor]:
    """Memory of all threads."""
    from armchair.core.threads import room

    return [room(size, dtype) for dtype, size in sizes.items()]
