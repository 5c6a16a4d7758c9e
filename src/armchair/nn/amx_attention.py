"""The loops of `blocked_attention.py` on a CPU that multiplies bfloat16 in tiles (amx.py).

What compiled_attention.py does for float32 is done here for bfloat16, with scores the other way
round: a row of a block's scores is a place, and its columns are 32 queries, so that maxima and sums
over places go from row to row, and weights lie as the next product wants them. Queries, keys,
values, weights and their gradients are rounded to bfloat16 before each product, as everywhere under
autocast; sums, maxima and powers are float32. Threads share the heads.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from armchair.core.jit import jit, piece
from armchair.core.vectors import (
    LANES,
    chosen,
    larger,
    load,
    paired,
    prefetch,
    spread,
    store,
    store_words,
    transpose,
)
from armchair.nn.amx import (
    BLOCK,
    TILE,
    apart,
    configure_tiles,
    multiply_tiles,
    pair_rows,
    release_tiles,
    turn_rows,
)
from armchair.nn.compiled_functions import exp2

_f = np.float32
_ZERO, _ONE, _LOWEST, _SMALLEST = _f(0), _f(1), _f(-1e30), _f(1e-30)
_LOG2_E = _f(1.4426950408889634)


class Layout(NamedTuple):
    """Sizes, and where each kind of number begins in a thread's memory."""

    batch: int
    length: int  # L, of the stream
    num_heads: int  # N
    head_dim: int  # K, a multiple of 32
    places: int  # P: those of the stream and what fills them up, a multiple of 32
    turned: int  # numbers from one channel's row of places to the next's

    # of bfloat16
    queries: int  # P K
    keys: int  # P K
    values: int  # P K
    values_turned: int  # K P
    columns: int  # 2 K/2 16 2: of a block of queries, in pairs of channels
    weights_in_pairs: int  # 2 P/2 16 2: of places
    square: int  # 16 32
    halves_forward: int

    keys_turned: int  # K P
    gradient: int  # P K
    gradient_columns: int  # as columns
    by_query: int  # K/16 16 16 2: of a block of queries, in pairs of queries
    weights: int  # P 32
    d_scores: int  # P 32
    halves_backward: int

    # of float32
    scores: int  # P 32
    means: int  # K 32
    floats_forward: int

    d_weights: int  # P 32
    d_keys: int  # P K
    d_values: int  # P K
    d_queries: int  # K 32: sums of a head's
    floats_backward: int


def layout_of(batch: int, length: int, num_heads: int, head_dim: int, places: int) -> Layout:
    """The layout of streams of a shape."""
    turned = apart(places)
    of_places, of_block, of_turned = places * head_dim, BLOCK * head_dim, head_dim * turned
    halves = {
        "queries": of_places,
        "keys": of_places,
        "values": of_places,
        "values_turned": of_turned,
        "columns": of_block,
        "weights_in_pairs": places * BLOCK,
        "square": TILE * BLOCK,
        "halves_forward": 0,
        "keys_turned": of_turned,
        "gradient": of_places,
        "gradient_columns": of_block,
        "by_query": of_block,
        "weights": places * BLOCK,
        "d_scores": places * BLOCK,
        "halves_backward": 0,
    }
    floats = {
        "scores": places * BLOCK,
        "means": of_block,
        "floats_forward": 0,
        "d_weights": places * BLOCK,
        "d_keys": of_places,
        "d_values": of_places,
        "d_queries": of_block,
        "floats_backward": 0,
    }
    starts = {}
    for sizes in (halves, floats):
        at = 0
        for name, size in sizes.items():
            starts[name] = at
            at += size
    return Layout(batch, length, num_heads, head_dim, places, turned, **starts)


def sizes_forward(layout: Layout) -> dict[torch.dtype, int]:
    """Numbers of each kind that a thread of `attend` needs."""
    return {torch.bfloat16: layout.halves_forward, torch.float32: layout.floats_forward}


def sizes_backward(layout: Layout) -> dict[torch.dtype, int]:
    """The same of `attend_backward`."""
    return {torch.bfloat16: layout.halves_backward, torch.float32: layout.floats_backward}


@jit()
def _gather(source, start, distance, bias, of_bias, order, dim, memory, at):
    """Copy a head's rows, with its bias, in the order of places; what only fills up is 0."""
    for place in range(len(order)):
        to, begin = at + place * dim, start + order[place] * distance
        for i in range(0, dim, LANES):
            row = spread(_ZERO)
            if order[place] >= 0:
                row = load(source, begin + i)
                if of_bias >= 0:
                    row = row + load(bias, of_bias + i)
            store(memory, to + i, row)


@jit()
def _fetch(source, start, distance, parts, apart, order, first, dim):
    """Ask for a block of rows of each part of the stream, which the next head will want."""
    for place in range(first, first + BLOCK):
        if order[place] >= 0:
            begin = start + order[place] * distance
            for part in range(parts):
                for i in range(0, dim, BLOCK):
                    prefetch(source, begin + part * apart + i)


@jit()
def _turn(memory, rows, layout, to):
    """Rows of channels, with the places in them, from rows of places."""
    dim, places = layout.head_dim, layout.places
    turn_rows(memory, rows, dim, places, dim, memory, to, layout.turned, layout.square)


@jit()
def _as_columns(memory, rows, start, layout, to):
    """A block of rows as columns of a product over channels."""
    dim = layout.head_dim
    for half in range(2):
        for i in range(0, dim, BLOCK):
            at = rows + (start + half * TILE) * dim + i
            transpose(memory, at, dim, memory, to + half * TILE * dim + i * TILE, BLOCK)


@jit()
def _by_query(memory, rows, start, layout, to):
    """A block of rows as the matrix of a product over its rows."""
    dim = layout.head_dim
    pair_rows(memory, rows + start * dim, dim, BLOCK, dim, memory, to, BLOCK)


@jit()
def _products(halves, rows, columns, block, layout, sums, to):
    """Rows of all places that a block sees times its columns, those of the text first."""
    _, text, first, others, _ = block
    dim = layout.head_dim
    for number in range(0, text + others, BLOCK):
        place = number if number < text else first + number - text
        multiply_tiles(
            2, 2, False, halves, rows + place * dim, dim, BLOCK, halves, columns, TILE * dim,
            dim // BLOCK, sums, to + number * BLOCK, BLOCK,
        )  # fmt: skip


@jit()
def _means(halves, turned, in_pairs, block, layout, sums, to):
    """Rows of channels times weights of the places that a block sees."""
    _, text, first, others, _ = block
    seen = text + others
    for i in range(0, layout.head_dim, BLOCK):
        row = turned + i * layout.turned
        multiply_tiles(
            2, 2, False, halves, row, layout.turned, BLOCK, halves, in_pairs, seen * TILE,
            text // BLOCK, sums, to + i * BLOCK, BLOCK,
        )  # fmt: skip
        if others > 0:
            multiply_tiles(
                2, 2, True, halves, row + first, layout.turned, BLOCK, halves,
                in_pairs + text * TILE, seen * TILE, others // BLOCK, sums, to + i * BLOCK, BLOCK,
            )  # fmt: skip


@jit()
def _add_gradient(halves, rows, by_query, block, layout, sums, to):
    """Add to each place that a block sees what its queries give it."""
    _, text, first, others, _ = block
    dim = layout.head_dim
    for number in range(0, text + others, BLOCK):
        place = number if number < text else first + number - text
        for i in range(0, dim, BLOCK):
            multiply_tiles(
                2, 2, True, halves, rows + number * BLOCK, BLOCK, BLOCK, halves,
                by_query + i * BLOCK, TILE * BLOCK, 1, sums, to + place * dim + i, dim,
            )  # fmt: skip


@jit()
def _scatter(sums, start, factors, layout, order, first, halves, target, begin, distance):
    """Copy columns, each times its factor, to the rows of their tokens."""
    square = layout.square
    for half in range(2):
        for i in range(0, layout.head_dim, BLOCK):
            for two in range(0, BLOCK, 2):
                at = start + (i + two) * BLOCK + half * TILE
                words = paired(
                    load(sums, at) * factors[half], load(sums, at + BLOCK) * factors[half]
                )
                store_words(halves, square + two * TILE, words)
            transpose(halves, square, BLOCK, halves, square, BLOCK)
            for row in range(TILE):
                token = order[first + half * TILE + row]
                if token >= 0:
                    to, at = begin + token * distance + i, square + row * BLOCK
                    store(target, to, load(halves, at))
                    store(target, to + LANES, load(halves, at + LANES))


@jit()
def _weigh(sums, scores, bits, start, seen, half, factor, halves, in_pairs):
    """What sixteen queries give to each place, in pairs and not yet divided by their sums.

    Gives the largest scores, and the sums.
    """
    highest, total, zero = spread(_LOWEST), spread(_ZERO), spread(_ZERO)
    lowest, scale = spread(_LOWEST), spread(factor * _LOG2_E)
    begin, mask = scores + half * TILE, start + half * seen
    for place in range(0, seen, 2):
        if bits[mask + place] | bits[mask + place + 1]:
            for other in range(place, place + 2):
                visible = chosen(bits, mask + other, load(sums, begin + other * BLOCK), lowest)
                highest = larger(visible, highest)
    least = highest * scale
    for place in range(0, seen, 2):
        to = in_pairs + (half * seen + place) * TILE
        if bits[mask + place] | bits[mask + place + 1]:
            at = begin + place * BLOCK
            one = exp2(load(sums, at) * scale - least)
            other = exp2(load(sums, at + BLOCK) * scale - least)
            one = chosen(bits, mask + place, one, zero)
            other = chosen(bits, mask + place + 1, other, zero)
            total = total + (one + other)
            store_words(halves, to, paired(one, other))
        else:
            store_words(halves, to, paired(zero, zero))
    return highest, total


@jit()
def attend(
    qkv, bias, order, blocks, bits, layout, factor, halves, floats, outputs, moments, thread,
    num_threads, _counter,
):  # fmt: skip
    """Outputs of a thread's heads.

    Args:
        qkv: Flat, of uint16: B L 3 N K.
        bias: Flat, of float32: 3 N K.
        order: P: the token at each place, or -1.
        blocks: For each the first place; how many places of the text it may see, in whole panels;
            the first of the others, and how many, in the same way; and where its bits begin.
        bits: For each block, half of its queries, and place: which of the half may see it.
        layout: See there.
        factor: Of scores.
        halves: Memory of all threads, of uint16.
        floats: Memory of all threads.
        outputs: Flat, of uint16, written to: B L N K.
        moments: Flat, of float32, written to: B N P/16 2 16: queries' largest scores, and the sums
            of their weights.
        thread: Of this call.
        num_threads: How many share the heads.
    """
    heads, dim, places = layout.num_heads, layout.head_dim, layout.places
    own = piece(halves, thread * layout.halves_forward, layout.halves_forward)
    sums = piece(floats, thread * layout.floats_forward, layout.floats_forward)
    distance, items = 3 * heads * dim, layout.batch * heads
    configure_tiles()
    for item in range(items * thread // num_threads, items * (thread + 1) // num_threads):
        picture, head = item // heads * layout.length, item % heads
        start, short = picture * distance + head * dim, heads * dim
        _gather(qkv, start, distance, bias, head * dim, order, dim, own, layout.queries)
        _gather(
            qkv, start + short, distance, bias, short + head * dim, order, dim, own, layout.keys
        )
        _gather(
            qkv, start + 2 * short, distance, bias, 2 * short + head * dim, order, dim, own,
            layout.values,
        )  # fmt: skip
        _turn(own, layout.values, layout, layout.values_turned)
        for number in range(len(blocks)):
            block = blocks[number]
            first, seen = block[0], block[1] + block[3]
            if head + 1 < heads:
                _fetch(qkv, start + dim, distance, 3, short, order, first, dim)
            _as_columns(own, layout.queries, first, layout, layout.columns)
            _products(own, layout.keys, layout.columns, block, layout, sums, layout.scores)
            highest, total = _weigh(
                sums, layout.scores, bits, block[4], seen, 0, factor, own, layout.weights_in_pairs
            )
            others_highest, others_total = _weigh(
                sums, layout.scores, bits, block[4], seen, 1, factor, own, layout.weights_in_pairs
            )
            at = (item * places + first) * 2
            store(moments, at, highest)
            store(moments, at + TILE, total)
            store(moments, at + 2 * TILE, others_highest)
            store(moments, at + 3 * TILE, others_total)
            _means(
                own, layout.values_turned, layout.weights_in_pairs, block, layout, sums,
                layout.means,
            )  # fmt: skip
            one = spread(_ONE)
            factors = (
                one / larger(total, spread(_SMALLEST)),
                one / larger(others_total, spread(_SMALLEST)),
            )
            _scatter(
                sums, layout.means, factors, layout, order, first, own, outputs,
                picture * short + head * dim, short,
            )  # fmt: skip
    release_tiles()


@jit()
def _weights_gradient(sums, bits, start, seen, half, factor, moments, at, halves, layout):
    """Weights of sixteen queries, and the gradient with regard to their scores, as products want.

    Scores and the gradient with regard to weights lie in `sums`.
    """
    zero, scale = spread(_ZERO), spread(factor * _LOG2_E)
    least = load(moments, at) * scale
    share = spread(_ONE) / larger(load(moments, at + TILE), spread(_SMALLEST))
    mean, mask, aside = spread(_ZERO), start + half * seen, half * TILE
    for place in range(0, seen, 2):
        if bits[mask + place] | bits[mask + place + 1]:
            for other in range(place, place + 2):
                from_, to = layout.scores + other * BLOCK + aside, layout.weights + other * BLOCK
                weight = exp2(load(sums, from_) * scale - least) * share
                weight = chosen(bits, mask + other, weight, zero)
                mean = mean + weight * load(sums, layout.d_weights + other * BLOCK + aside)
                store(sums, from_, weight)
                store(halves, to + aside, weight)
        else:
            store(halves, layout.weights + place * BLOCK + aside, zero)
            store(halves, layout.weights + (place + 1) * BLOCK + aside, zero)
    scale = spread(factor)
    for place in range(0, seen, 2):
        to = layout.d_scores + place * BLOCK + aside
        words = layout.weights_in_pairs + (half * seen + place) * TILE
        if bits[mask + place] | bits[mask + place + 1]:
            at = place * BLOCK + aside
            one = load(sums, layout.scores + at)
            other = load(sums, layout.scores + at + BLOCK)
            one = one * ((load(sums, layout.d_weights + at) - mean) * scale)
            other = other * ((load(sums, layout.d_weights + at + BLOCK) - mean) * scale)
            store(halves, to, one)
            store(halves, to + BLOCK, other)
            store_words(halves, words, paired(one, other))
        else:
            store(halves, to, zero)
            store(halves, to + BLOCK, zero)
            store_words(halves, words, paired(zero, zero))


@jit()
def _store_rows(sums, start, layout, order, target, begin, distance, d_bias, of_bias):
    """Copy a head's rows to their tokens, and add them up."""
    dim = layout.head_dim
    for i in range(0, dim, LANES):
        store(d_bias, of_bias + i, spread(_ZERO))
    for place in range(layout.places):
        if order[place] >= 0:
            to = begin + order[place] * distance
            for i in range(0, dim, LANES):
                row = load(sums, start + place * dim + i)
                store(target, to + i, row)
                store(d_bias, of_bias + i, load(d_bias, of_bias + i) + row)


@jit()
def attend_backward(
    qkv, bias, order, blocks, bits, layout, factor, halves, floats, moments, d_outputs, d_qkv,
    d_bias, thread, num_threads, _counter,
):  # fmt: skip
    """Gradients of a thread's heads; weights are computed anew.

    Args:
        qkv: As for `attend`, as all that is not said here.
        bias: See there.
        order: See there.
        blocks: See there.
        bits: See there.
        layout: See there.
        factor: See there.
        halves: See there.
        floats: See there.
        moments: See there.
        d_outputs: Flat, of uint16: B L N K.
        d_qkv: Flat, of uint16, written to: B L 3 N K.
        d_bias: Flat, of float32, written to: B 3 N K.
        thread: Of this call.
        num_threads: How many share the heads.
    """
    heads, dim, places = layout.num_heads, layout.head_dim, layout.places
    own = piece(halves, thread * layout.halves_backward, layout.halves_backward)
    sums = piece(floats, thread * layout.floats_backward, layout.floats_backward)
    distance, items = 3 * heads * dim, layout.batch * heads
    one = spread(_ONE)
    configure_tiles()
    for item in range(items * thread // num_threads, items * (thread + 1) // num_threads):
        picture, head = item // heads * layout.length, item % heads
        start, short = picture * distance + head * dim, heads * dim
        of_keys, of_values = start + short, start + 2 * short
        of_bias, of_d_bias = head * dim, item // heads * distance + head * dim
        _gather(qkv, start, distance, bias, of_bias, order, dim, own, layout.queries)
        _gather(qkv, of_keys, distance, bias, short + of_bias, order, dim, own, layout.keys)
        _gather(qkv, of_values, distance, bias, 2 * short + of_bias, order, dim, own, layout.values)
        of_outputs = picture * short + head * dim
        _gather(d_outputs, of_outputs, short, bias, -1, order, dim, own, layout.gradient)
        _turn(own, layout.keys, layout, layout.keys_turned)
        for i in range(0, places * dim, LANES):
            store(sums, layout.d_keys + i, spread(_ZERO))
            store(sums, layout.d_values + i, spread(_ZERO))
        for i in range(0, dim * BLOCK, LANES):
            store(sums, layout.d_queries + i, spread(_ZERO))
        for number in range(len(blocks)):
            block = blocks[number]
            first, seen = block[0], block[1] + block[3]
            if head + 1 < heads:
                _fetch(qkv, start + dim, distance, 3, short, order, first, dim)
                _fetch(d_outputs, of_outputs + dim, short, 1, 0, order, first, dim)
            _as_columns(own, layout.queries, first, layout, layout.columns)
            _as_columns(own, layout.gradient, first, layout, layout.gradient_columns)
            _products(own, layout.keys, layout.columns, block, layout, sums, layout.scores)
            _products(
                own, layout.values, layout.gradient_columns, block, layout, sums, layout.d_weights
            )
            for half in range(2):
                at = (item * places + first + half * TILE) * 2
                _weights_gradient(
                    sums, bits, block[4], seen, half, factor, moments, at, own, layout
                )
            _by_query(own, layout.gradient, first, layout, layout.by_query)
            _add_gradient(
                own, layout.weights, layout.by_query, block, layout, sums, layout.d_values
            )
            _by_query(own, layout.queries, first, layout, layout.by_query)
            _add_gradient(own, layout.d_scores, layout.by_query, block, layout, sums, layout.d_keys)
            _means(
                own, layout.keys_turned, layout.weights_in_pairs, block, layout, sums, layout.means
            )
            for i in range(0, dim * BLOCK, LANES):
                at = layout.d_queries + i
                store(sums, at, load(sums, at) + load(sums, layout.means + i))
            _scatter(
                sums, layout.means, (one, one), layout, order, first, own, d_qkv, start, distance
            )
        _store_rows(
            sums, layout.d_keys, layout, order, d_qkv, of_keys, distance, d_bias, of_d_bias + short
        )
        _store_rows(
            sums, layout.d_values, layout, order, d_qkv, of_values, distance, d_bias,
            of_d_bias + 2 * short,
        )  # fmt: skip
        for i in range(dim):
            total = _ZERO
            for j in range(BLOCK):
                total += sums[layout.d_queries + i * BLOCK + j]
            d_bias[of_d_bias + i] = total
    release_tiles()
