"""Exact masked attention over blocks of sixteen queries: what a CPU trains with.

The stream's text and its image are each filled up to whole panels of sixteen places; column layers
first put the image in column order, where a column is a stretch. A block of queries then sees some
of the text's panels, and one stretch of the image's. The blocks are read off the dense mask: the
two cannot disagree. Nothing is kept for the backward pass but queries, keys and values.

Under autocast these come in bfloat16, and outputs and gradients go in it; all between is float32.
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
    return _BlockedAttention.apply(qkv, bias, pattern, num_heads)


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
    """Cut the stream into blocks of queries."""
    text = pattern.text_length
    tokens = plan_order(pattern).numpy()
    order = np.concatenate([_filled(tokens[:text]), _filled(tokens[text:])])
    sees = np.zeros((len(order), len(order)), dtype=bool)
    real = order >= 0
    sees[np.ix_(real, real)] = dense_mask(pattern).numpy()[np.ix_(order[real], order[real])]
    of_text = -(-text // _BLOCK) * _BLOCK
    blocks, masks, begin = [], [], 0
    for start in range(0, len(order), _BLOCK):
        count = int(real[start : start + _BLOCK].sum())
        rows = sees[start : start + count]
        seen = np.flatnonzero(rows.any(axis=0))
        first, stop = seen[seen >= of_text][[0, -1]] if seen[-1] >= of_text else (of_text, 0)
        first = first // _BLOCK * _BLOCK
        others = max(0, -(-(stop + 1) // _BLOCK) * _BLOCK - first)
        in_text = -(-(seen[seen < of_text][-1] + 1) // _BLOCK) * _BLOCK
        blocks.append([start, count, in_text, first, others, begin])
        mask = np.concatenate([rows[:, :in_text], rows[:, first : first + others]], axis=1)
        masks.append(np.where(mask, np.float32(0), np.float32(-np.inf)).flatten())
        begin += mask.size
    return BlockPlan(order, np.array(blocks), np.concatenate(masks))


def _filled(tokens: np.ndarray) -> np.ndarray:
    return np.pad(tokens, (0, -len(tokens) % _BLOCK), constant_values=-1)


def _memory(size: int) -> Tensor:
    """So many float32 for each thread."""
    return torch.empty(torch.get_num_threads() * size, dtype=torch.float32, device="cpu")


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, pattern: AttentionPattern, num_heads: int
    ) -> Tensor:
        from armchair.core.jit import share  # imports numba
        from armchair.nn.compiled_attention import attend, layout_of

        qkv = qkv.contiguous()
        batch, length, dim = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        plan = block_plan(pattern)
        layout = layout_of(batch, length, num_heads, dim // num_heads, len(plan.order))
        factor = np.float32((dim // num_heads) ** -0.5)
        memory = _memory(layout.forward_size)
        outputs = qkv.new_empty(batch, length, dim)
        share(attend, qkv, bias.float(), *plan, layout, factor, memory, outputs)
        ctx.save_for_backward(qkv, bias)
        ctx.plan, ctx.layout, ctx.factor = plan, layout, factor
        return outputs

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        from armchair.core.jit import share
        from armchair.nn.compiled_attention import attend_backward

        qkv, bias = ctx.saved_tensors
        memory = _memory(ctx.layout.backward_size)
        d_qkv, d_bias = torch.empty_like(qkv), bias.new_zeros(len(qkv), len(bias)).float()
        rest = (ctx.layout, ctx.factor, memory, gradient.contiguous(), d_qkv, d_bias)
        share(attend_backward, qkv, bias.float(), *ctx.plan, *rest)
        return d_qkv, d_bias.sum(0).to(bias), None, None
