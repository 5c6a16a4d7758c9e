"""The loops of `blocked_attention.py`, compiled for a CPU.

A head of a picture is copied to where products want it, and then never leaves the processor's
second cache: block after block of sixteen queries is multiplied with its keys, weighed, and
multiplied with its values. Threads share the heads. All that a thread needs lies in one array;
`Layout` says where. "Over places" are panels of sixteen places, and "over dims" of sixteen
channels; see `panels.py`.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from armchair.core.jit import jit, piece
from armchair.nn.compiled_functions import softmax, stored_in, widened
from armchair.nn.panels import PANEL, add_transposed, filled, multiply

_f = np.float32


class Layout(NamedTuple):
    """Sizes, and where each kind of number begins in a thread's memory."""

    batch: int
    length: int  # L, of the stream
    num_heads: int  # N
    head_dim: int  # K
    places: int  # P: those of the stream and what fills them up
    width: int  # K, filled up to whole panels

    queries: int  # P K
    keys: int  # over places
    values: int  # over dims
    scores: int  # 16 P
    means: int  # 2 16 width
    forward_size: int

    keys_over_dims: int
    queries_over_dims: int
    values_over_places: int
    gradient: int  # P K
    gradient_over_dims: int
    d_scores: int  # 16 P
    d_keys: int  # P width
    d_values: int  # P width
    backward_size: int


def layout_of(batch: int, length: int, num_heads: int, head_dim: int, places: int) -> Layout:
    """The layout of streams of a shape."""
    width = filled(head_dim)
    sizes = {
        "queries": places * head_dim,
        "keys": places * head_dim,
        "values": places * width,
        "scores": PANEL * places,
        "means": 2 * PANEL * width,
        "forward_size": 0,
        "keys_over_dims": places * width,
        "queries_over_dims": places * width,
        "values_over_places": places * head_dim,
        "gradient": places * head_dim,
        "gradient_over_dims": places * width,
        "d_scores": PANEL * places,
        "d_keys": places * width,
        "d_values": places * width,
        "backward_size": 0,
    }
    starts, at = {}, 0
    for name, size in sizes.items():
        starts[name] = at
        at += size
    return Layout(batch, length, num_heads, head_dim, places, width, **starts)


def sizes_forward(layout: Layout) -> dict[torch.dtype, int]:
    """Numbers of each kind that a thread of `attend` needs."""
    return {torch.float32: layout.forward_size}


def sizes_backward(layout: Layout) -> dict[torch.dtype, int]:
    """The same of `attend_backward`."""
    return {torch.float32: layout.backward_size}


@jit()
def _rows(source, start, distance, bias, order, dim, memory, at):
    """Copy a head's numbers, with its bias, in the order of places; what only fills up is 0."""
    for place in range(len(order)):
        to = piece(memory, at + place * dim, dim)
        if order[place] < 0:
            to[:] = _f(0)
        else:
            row = piece(source, start + order[place] * distance, dim)
            for i in range(dim):
                to[i] = widened(row[i]) + bias[i]


@jit()
def _over_places(source, start, distance, bias, order, dim, memory, at):
    """The same in panels of sixteen places."""
    for place in range(len(order)):
        to = at + place // PANEL * PANEL * dim + place % PANEL
        if order[place] < 0:
            for i in range(dim):
                memory[to + i * PANEL] = _f(0)
        else:
            row = piece(source, start + order[place] * distance, dim)
            for i in range(dim):
                memory[to + i * PANEL] = widened(row[i]) + bias[i]


@jit()
def _over_dims(source, start, distance, bias, order, dim, memory, at):
    """The same in panels of sixteen channels."""
    for first in range(0, dim, PANEL):
        count = min(PANEL, dim - first)
        for place in range(len(order)):
            to = piece(memory, at + first * len(order) + place * PANEL, PANEL)
            if order[place] < 0 or count < PANEL:
                to[:] = _f(0)
            if order[place] >= 0:
                row = piece(source, start + order[place] * distance + first, count)
                for i in range(count):
                    to[i] = widened(row[i]) + bias[first + i]


@jit()
def _products(memory, rows, of_places, text, first, others, count, layout, to):
    """Rows of a block times all places that it may see, those of the text first."""
    dim, seen = layout.head_dim, text + others
    size = dim * PANEL
    multiply(
        memory, rows, dim, count, memory, of_places, size, text // PANEL, dim, memory, to, seen
    )
    multiply(
        memory, rows, dim, count, memory, of_places + first * dim, size, others // PANEL, dim,
        memory, to + text, seen,
    )  # fmt: skip


@jit()
def _weights(memory, block, masks, layout, factor):
    """What the queries of a block give to each place that it may see."""
    start, count, text, first, others, mask = block
    queries, seen = layout.queries + start * layout.head_dim, text + others
    _products(memory, queries, layout.keys, text, first, others, count, layout, layout.scores)
    for row in range(count):
        scores = piece(memory, layout.scores + row * seen, seen)
        hidden = piece(masks, mask + row * seen, seen)
        for i in range(seen):
            scores[i] += hidden[i]
        softmax(scores, factor)


@jit()
def _means(memory, weights, over_dims, block, layout):
    """Rows of weights times all places, in channels; the sum of two parts, text and others."""
    _, count, text, first, others, _ = block
    width, distance, panels = layout.width, layout.places * PANEL, layout.width // PANEL
    means, of_others = layout.means, layout.means + PANEL * layout.width
    multiply(
        memory, weights, text + others, count, memory, over_dims, distance, panels, text, memory,
        means, width,
    )  # fmt: skip
    if others > 0:
        multiply(
            memory, weights + text, text + others, count, memory, over_dims + first * PANEL,
            distance, panels, others, memory, of_others, width,
        )  # fmt: skip
        whole, added = (
            piece(memory, means, count * width),
            piece(memory, of_others, count * width),
        )
        for i in range(count * width):
            whole[i] += added[i]


@jit()
def _add_gradient(memory, weights, over_dims, block, layout, to):
    """Add to each place what a block's rows give it under their weights."""
    start, count, text, first, others, _ = block
    width, distance, panels = layout.width, layout.places * PANEL, layout.width // PANEL
    at = over_dims + start * PANEL
    add_transposed(
        memory, weights, text + others, text, memory, at, distance, panels, count, memory, to, width
    )
    add_transposed(
        memory, weights + text, text + others, others, memory, at, distance, panels, count, memory,
        to + first * width, width,
    )  # fmt: skip


@jit()
def _scatter(memory, start, rows, width, order, first, target, begin, distance, dim):
    """Copy rows back to their tokens."""
    for row in range(rows):
        token = order[first + row]
        if token >= 0:
            number = piece(memory, start + row * width, dim)
            to = piece(target, begin + token * distance, dim)
            for i in range(dim):
                to[i] = stored_in(to, number[i])


@jit()
def _biases(bias, head, layout):
    """A head's, of queries, keys and values."""
    size = layout.num_heads * layout.head_dim
    at = head * layout.head_dim
    return (
        piece(bias, at, layout.head_dim),
        piece(bias, size + at, layout.head_dim),
        piece(bias, 2 * size + at, layout.head_dim),
    )


@jit()
def _add_rows(memory, start, rows, width, sums):
    """Add rows up; those that only fill up are 0."""
    for row in range(rows):
        number = piece(memory, start + row * width, len(sums))
        for i in range(len(sums)):
            sums[i] += number[i]


@jit()
def attend(
    qkv, bias, order, blocks, masks, layout, factor, memory, outputs, thread, num_threads, _counter
):
    """Outputs of a thread's heads.

    Args:
        qkv: Flat: B L 3 N K; float32, or bfloat16 as uint16, as all tensors of the stream are.
        bias: Flat: 3 N K, float32.
        order: P: the token at each place, or -1.
        blocks: For each the first place; how many queries; how many places of the text it may
            see, in whole panels; the first of the others, and how many, in the same way; and where
            its mask begins.
        masks: Added to scores, queries times places of each block.
        layout: See there.
        factor: Of scores.
        memory: Of all threads.
        outputs: Flat: B L N K.
        thread: Of this call.
        num_threads: How many share the heads.
    """
    heads, dim = layout.num_heads, layout.head_dim
    own = piece(memory, thread * layout.forward_size, layout.forward_size)
    distance, items = 3 * heads * dim, layout.batch * heads
    for item in range(items * thread // num_threads, items * (thread + 1) // num_threads):
        picture, head = item // heads * layout.length, item % heads
        start = picture * distance + head * dim
        of_q, of_k, of_v = _biases(bias, head, layout)
        _rows(qkv, start, distance, of_q, order, dim, own, layout.queries)
        _over_places(qkv, start + heads * dim, distance, of_k, order, dim, own, layout.keys)
        _over_dims(qkv, start + 2 * heads * dim, distance, of_v, order, dim, own, layout.values)
        for number in range(len(blocks)):
            block = blocks[number]
            _weights(own, block, masks, layout, factor)
            _means(own, layout.scores, layout.values, block, layout)
            begin = picture * heads * dim + head * dim
            _scatter(
                own, layout.means, block[1], layout.width, order, block[0], outputs, begin,
                heads * dim, dim,
            )  # fmt: skip


@jit(fastmath={"contract", "reassoc"})
def _dot(x, y):
    total = _f(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@jit()
def _weights_gradient(memory, block, layout, factor):
    """From the weights, and the gradient with regard to them, that with regard to the scores."""
    _, count, text, _, others, _ = block
    seen = text + others
    for row in range(count):
        weights = piece(memory, layout.scores + row * seen, seen)
        gradient = piece(memory, layout.d_scores + row * seen, seen)
        mean = _dot(weights, gradient)
        for i in range(seen):
            gradient[i] = weights[i] * (gradient[i] - mean) * factor


@jit()
def attend_backward(
    qkv, bias, order, blocks, masks, layout, factor, memory, d_outputs, d_qkv, d_bias, thread,
    num_threads, _counter,
):  # fmt: skip
    """Gradients of a thread's heads; weights are computed anew.

    Args:
        qkv: As for `attend`, as all that is not said here.
        bias: See there.
        order: See there.
        blocks: See there.
        masks: See there.
        layout: See there.
        factor: See there.
        memory: Of all threads.
        d_outputs: Flat: B L N K.
        d_qkv: Flat, written to: B L 3 N K.
        d_bias: Flat, added to: B 3 N K.
        thread: Of this call.
        num_threads: How many share the heads.
    """
    heads, dim, width, places = layout.num_heads, layout.head_dim, layout.width, layout.places
    own = piece(memory, thread * layout.backward_size, layout.backward_size)
    none = np.zeros(dim, np.float32)
    distance, short, items = 3 * heads * dim, heads * dim, layout.batch * heads
    for item in range(items * thread // num_threads, items * (thread + 1) // num_threads):
        picture, head = item // heads * layout.length, item % heads
        start = picture * distance + head * dim
        of_keys, of_values = start + short, start + 2 * short
        of_outputs = picture * short + head * dim
        of_q, of_k, of_v = _biases(bias, head, layout)
        d_q, d_k, d_v = _biases(piece(d_bias, item // heads * distance, distance), head, layout)
        _rows(qkv, start, distance, of_q, order, dim, own, layout.queries)
        _over_dims(qkv, start, distance, of_q, order, dim, own, layout.queries_over_dims)
        _over_places(qkv, of_keys, distance, of_k, order, dim, own, layout.keys)
        _over_dims(qkv, of_keys, distance, of_k, order, dim, own, layout.keys_over_dims)
        _over_places(qkv, of_values, distance, of_v, order, dim, own, layout.values_over_places)
        _rows(d_outputs, of_outputs, short, none, order, dim, own, layout.gradient)
        _over_dims(d_outputs, of_outputs, short, none, order, dim, own, layout.gradient_over_dims)
        piece(own, layout.d_keys, places * width)[:] = _f(0)
        piece(own, layout.d_values, places * width)[:] = _f(0)
        for number in range(len(blocks)):
            block = blocks[number]
            _weights(own, block, masks, layout, factor)
            _products(
                own, layout.gradient + block[0] * dim, layout.values_over_places, block[2],
                block[3], block[4], block[1], layout, layout.d_scores,
            )  # fmt: skip
            _add_gradient(
                own, layout.scores, layout.gradient_over_dims, block, layout, layout.d_values
            )
            _weights_gradient(own, block, layout, factor)
            _add_gradient(
                own, layout.d_scores, layout.queries_over_dims, block, layout, layout.d_keys
            )
            _means(own, layout.d_scores, layout.keys_over_dims, block, layout)
            _scatter(
                own, layout.means, block[1], width, order, block[0], d_qkv, start, distance, dim
            )
            _add_rows(own, layout.means, block[1], width, d_q)
        _scatter(own, layout.d_keys, places, width, order, 0, d_qkv, of_keys, distance, dim)
        _scatter(own, layout.d_values, places, width, order, 0, d_qkv, of_values, distance, dim)
        _add_rows(own, layout.d_keys, places, width, d_k)
        _add_rows(own, layout.d_values, places, width, d_v)
