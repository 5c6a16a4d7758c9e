"""Products of whole matrices of bfloat16 in tiles (amx.py), where a library's are slow or rounded.

`multiply` keeps sums as float32, and can take each matrix as two of bfloat16, of which the second
holds what the first has rounded away; three of the four products then give the sums to within
2^-16. `weight_gradient` sums over rows, which libraries are slow at: it lays out what it needs some
rows at a time, while that is in a processor's second cache.

All sizes are multiples of 32 but for outputs of `pack`.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from armchair.core.jit import jit, piece
from armchair.core.vectors import (
    LANES,
    as_bfloat16,
    load,
    paired,
    spread,
    store,
    store_words,
    transpose,
)
from armchair.nn.amx import (
    BLOCK,
    TILE,
    configure_tiles,
    multiply_tiles,
    pair_rows,
    release_tiles,
    turn_rows,
)

SQUARE = BLOCK * TILE
"""Numbers of uint16 that each thread needs for `pack`."""
_TERMS = 512  # of a sum at a time
_ROWS = 256  # of a gradient's sums at a time
_SUMS = 1 << 17  # numbers that stay in the second cache
_ZERO = np.float32(0)


@jit()
def _rounded_away(numbers):
    """What bfloat16 rounds away of sixteen numbers."""
    return numbers - as_bfloat16(numbers)


@jit()
def split(rows, count, dim, parts, thread, num_threads, _counter):
    """Rows as bfloat16, and beside each what that rounds away.

    Args:
        rows: Flat: R D, float32.
        count: R.
        dim: D.
        parts: Flat, of uint16, written to: R 2 D.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    for row in range(count * thread // num_threads, count * (thread + 1) // num_threads):
        for i in range(0, dim, LANES):
            numbers = load(rows, row * dim + i)
            store(parts, 2 * row * dim + i, numbers)
            store(parts, (2 * row + 1) * dim + i, _rounded_away(numbers))


@jit()
def pack(weight, outputs, inputs, parts, squares, columns, turned, thread, num_threads, _counter):
    """Lay out a weight as columns for products with inputs, and with gradients of outputs.

    Args:
        weight: Flat: O I, float32.
        outputs: O; those that fill it up to P, a multiple of 16, are zero.
        inputs: I.
        parts: 1; or 2, to have beside each weight what bfloat16 rounds away.
        squares: Of all threads, of uint16, `SQUARE` each.
        columns: Flat, of uint16, written to: P/16 parts I/2 16 2.
        turned: Flat, of uint16, written to: I/16 P/2 16 2; or nothing.
        thread: Of this call.
        num_threads: How many share the outputs.
    """
    square = piece(squares, thread * SQUARE, SQUARE)
    filled = len(columns) // (parts * inputs)
    panels, zero = filled // TILE, spread(_ZERO)
    for panel in range(panels * thread // num_threads, panels * (thread + 1) // num_threads):
        first = panel * TILE * inputs
        count = min(max(outputs - panel * TILE, 0), TILE)
        for part in range(parts):
            for k in range(0, inputs, BLOCK):
                for row in range(TILE):
                    for half in range(0, BLOCK, LANES):
                        numbers = zero
                        if row < count:
                            numbers = load(weight, first + row * inputs + k + half)
                        if part == 1:
                            numbers = _rounded_away(numbers)
                        store(square, row * BLOCK + half, numbers)
                to = (parts * panel + part) * TILE * inputs + k * TILE
                transpose(square, 0, BLOCK, columns, to, BLOCK)
        for k in range(0, inputs if len(turned) else 0, TILE):
            for row in range(0, TILE, 2):
                one, other, at = zero, zero, first + row * inputs + k
                if row < count:
                    one = load(weight, at)
                if row + 1 < count:
                    other = load(weight, at + inputs)
                store_words(turned, k * filled + (panel * TILE + row) * TILE, paired(one, other))


@jit()
def multiply(
    rows, num_rows, num_terms, is_split, columns, num_columns, products, thread, num_threads,
    _counter,
):  # fmt: skip
    """Rows times columns.

    Args:
        rows: Flat, of uint16: R K, or R 2 K as `split` makes them.
        num_rows: R.
        num_terms: K.
        is_split: Whether rows and columns are in two parts.
        columns: Flat, of uint16, as `pack` makes them: N/16 K/2 16 2, or N/16 2 K/2 16 2.
        num_columns: N; best no multiple of 256, or rows drive each other from the first cache.
        products: Flat, of float32, written to: R N.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    width = 2 * num_terms if is_split else num_terms
    chunk, blocks = max(_SUMS // min(num_terms, _TERMS) // BLOCK, 1) * BLOCK, num_rows // BLOCK
    configure_tiles()
    for term in range(0, num_terms, _TERMS):
        steps = min(_TERMS, num_terms - term) // BLOCK
        for first in range(0, num_columns, chunk):
            for block in range(
                blocks * thread // num_threads, blocks * (thread + 1) // num_threads
            ):
                for column in range(first, min(first + chunk, num_columns), BLOCK):
                    to = block * BLOCK * num_columns + column
                    for part in range(3 if is_split else 1):
                        row = block * BLOCK * width + term
                        at = column * width + term * TILE
                        if part == 1:
                            row += num_terms
                        elif part == 2:
                            at += num_terms * TILE
                        multiply_tiles(
                            2, 2, term + part > 0, rows, row, width, BLOCK, columns, at,
                            TILE * width, steps, products, to, num_columns,
                        )  # fmt: skip
    release_tiles()


class Groups(NamedTuple):
    """How `weight_gradient` goes about a weight; see `groups_of`."""

    size: int  # inputs or outputs, whichever are more, at a time
    halves: int  # numbers of uint16 that each thread needs
    floats: int  # and of float32


def groups_of(inputs: int, outputs: int, num_threads: int) -> Groups:
    """Groups that threads can share, and whose sums stay in the second cache."""
    larger, smaller = max(inputs, outputs), min(inputs, outputs)
    each = -(-larger // (BLOCK * num_threads)) * BLOCK
    size = min(each, max(_SUMS // smaller // BLOCK, 1) * BLOCK)
    return Groups(size, (_ROWS + BLOCK) * (size + smaller) + SQUARE, size * smaller)


@jit()
def _write(sums, width, height, is_added, target, begin, distance):
    """Write blocks of sums, those of 32 rows after each other, to rows of a matrix."""
    for block in range(0, height, BLOCK):
        for i in range(0, width, BLOCK):
            for row in range(BLOCK):
                to = begin + (block + row) * distance + i
                for half in range(0, BLOCK, LANES):
                    numbers = load(sums, block * width + i * BLOCK + row * BLOCK + half)
                    if is_added:
                        numbers = numbers + load(target, to + half)
                    store(target, to + half, numbers)


@jit()
def weight_gradient(
    x, d_products, num_rows, inputs, outputs, groups, is_added, halves, floats, d_weight, thread,
    num_threads, _counter,
):  # fmt: skip
    """The gradient of a weight, that of outputs times inputs, summed over rows.

    Args:
        x: Flat, of uint16: R I.
        d_products: Flat, of uint16: R O.
        num_rows: R, as all sizes a multiple of 32.
        inputs: I.
        outputs: O.
        groups: See `groups_of`.
        is_added: Whether to add to the gradient.
        halves: Memory of all threads, of uint16.
        floats: Memory of all threads, of float32.
        d_weight: Flat, of float32, written to or added to: O I.
        thread: Of this call.
        num_threads: How many share the groups.
    """
    own = piece(halves, thread * groups.halves, groups.halves)
    sums = piece(floats, thread * groups.floats, groups.floats)
    group, distance = groups.size, _ROWS + BLOCK
    count = (max(inputs, outputs) + group - 1) // group
    configure_tiles()
    for number in range(count * thread // num_threads, count * (thread + 1) // num_threads):
        first_in, last_in, first_out, last_out = 0, inputs, 0, outputs
        if inputs > outputs:
            first_in, last_in = number * group, min(inputs, (number + 1) * group)
        else:
            first_out, last_out = number * group, min(outputs, (number + 1) * group)
        width, height = last_in - first_in, last_out - first_out
        of_outputs, square = distance * width, distance * (width + height)
        for first in range(0, num_rows, _ROWS):
            rows = min(_ROWS, num_rows - first)
            pair_rows(x, first * inputs + first_in, inputs, rows, width, own, 0, distance)
            turn_rows(
                d_products, first * outputs + first_out, outputs, rows, height, own, of_outputs,
                distance, square,
            )  # fmt: skip
            for out in range(0, height, BLOCK):
                for i in range(0, width, BLOCK):
                    multiply_tiles(
                        2, 2, first > 0, own, of_outputs + out * distance, distance, BLOCK, own,
                        i * distance, TILE * distance, rows // BLOCK, sums,
                        out * width + i * BLOCK, BLOCK,
                    )  # fmt: skip
        _write(sums, width, height, is_added, d_weight, first_out * inputs + first_in, inputs)
    release_tiles()
