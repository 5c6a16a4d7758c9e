"""Products with weights in panels of sixteen outputs, for a few rows on a CPU, by our own code.

A library's matrix product is made for many rows. A step of sampling has as many rows as pictures
are drawn, and takes the time in which its weights are read; so they lie here in the order in which
they are read, in 32, 16, or 8 bits, and are widened to 32 in registers:

    panels[p, k, n] = weight[16 p + n, k]

A panel's sums over k stay in registers, each added up in the order of k by fused multiply-adds. A
row's sums therefore have the same bits whichever rows stand beside it.

`multiply` and `add_transposed` run inside other compiled functions, on flat arrays: what they read
and write is named by where it begins. `pack_linear` makes panels.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from llvmlite import ir
from numba import types
from numba.core import cgutils
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.jit import intrinsic, jit, piece, shared_function
from armchair.core.threads import room, share
from armchair.core.vectors import processor_has
from armchair.nn.amx_products import SQUARE, pack
from armchair.nn.compiled_functions import stored_in

PANEL = 16
_BLOCK = 1 << 16  # weights that stay in a processor's second cache while rows go by

_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, PANEL), ir.VectorType(_I32, PANEL)
# Rows, and panels at once: as many sums as hide how long one takes, and as registers can hold.
_WIDEST = {4: 4, 2: 4, 1: 8} if processor_has("avx512f") else {4: 1, 2: 2, 1: 4}
_OF_FOUR, _OF_TWO, _OF_ONE = _WIDEST[4], _WIDEST[2], _WIDEST[1]
_TILES = [
    (rows, panels) for rows, most in _WIDEST.items() for panels in (8, 4, 2, 1) if panels <= most
]
_MULTIPLY_ADD = ir.FunctionType(_FLOATS, [_FLOATS] * 3)


def filled(count: int) -> int:
    """So many, filled up to whole panels."""
    return count + -count % PANEL


def in_panels(weights: Shaped[Tensor, "*L N K"]) -> Shaped[Tensor, "*L P K 16"]:
    """Lay out matrices; outputs are filled up with zeros."""
    weights = F.pad(weights, (0, 0, 0, -weights.shape[-2] % PANEL))
    return weights.unflatten(-2, (-1, PANEL)).mT


def pack_linear(
    linear: nn.Linear, dtype: torch.dtype
) -> tuple[Shaped[Tensor, "P K 16"], Float[Tensor, "2 P16"]]:
    """Lay out a linear layer.

    Args:
        linear: From K numbers to N.
        dtype: What to keep weights in: float32; bfloat16, rounded to the nearest; or int8, under
            a scale for each output with which its largest weight becomes 127.

    Returns:
        The panels; and for each output the scale that its sum is to be multiplied by, and the bias
        to be added then.
    """
    weight, bias = linear.weight.detach().float(), linear.bias.detach().float()
    scale = torch.ones_like(bias)
    if dtype == torch.int8:
        scale = weight.abs().amax(dim=1) / 127
        weight = (weight / scale.clamp(min=1e-30)[:, None]).round()
    factors = F.pad(torch.stack([scale, bias]), (0, -len(bias) % PANEL))
    panels = weight.new_empty(factors.shape[1] // PANEL, weight.shape[1], PANEL, dtype=dtype)
    share(_lay_out, weight.contiguous(), len(weight), weight.shape[1], panels)
    return panels, factors


def pack_for_tiles(
    linear: nn.Linear, dtype: torch.dtype
) -> tuple[Shaped[Tensor, "P K 16"], Float[Tensor, "2 P16"]]:
    """The same in pairs of inputs, as tiles want it (amx.py); K is a multiple of 32."""
    weight, bias = linear.weight.detach().float(), linear.bias.detach().float()
    factors = F.pad(torch.stack([torch.ones_like(bias), bias]), (0, -len(bias) % PANEL))
    panels = weight.new_empty(factors.shape[1] // PANEL, weight.shape[1], PANEL, dtype=dtype)
    squares = room(SQUARE, dtype)
    share(pack, weight.contiguous(), *weight.shape, 1, squares, panels, panels.new_empty(0))
    return panels, factors


@jit()
def _lay_out(weight, outputs, inputs, panels, thread, num_threads, _counter):
    """What `in_panels` does, of one matrix: reads sixteen rows at a time."""
    count = len(panels) // (inputs * PANEL)
    for panel in range(count * thread // num_threads, count * (thread + 1) // num_threads):
        rows = min(PANEL, outputs - panel * PANEL)
        for k in range(inputs):
            to = piece(panels, (panel * inputs + k) * PANEL, PANEL)
            for n in range(rows):
                to[n] = stored_in(to, weight[(panel * PANEL + n) * inputs + k])
            for n in range(rows, PANEL):
                to[n] = stored_in(to, np.float32(0))


def _tile_intrinsic(*, transposed: bool) -> Any:
    @intrinsic
    def tile(
        _: Any,
        num_rows: Any,
        num_panels: Any,
        numbers: Any,
        row: Any,
        row_distance: Any,
        panels: Any,
        panel: Any,
        panel_distance: Any,
        count: Any,
        sums: Any,
        place: Any,
        place_distance: Any,
    ) -> Any:
        signature = types.void(
            *(num_rows, num_panels, numbers, row, row_distance),
            *(panels, panel, panel_distance, count, sums, place, place_distance),
        )
        return signature, functools.partial(_generate_tile, transposed=transposed)

    return tile


def _generate_tile(
    context: Any, builder: Any, signature: Any, arguments: Any, *, transposed: bool
) -> Any:
    """Call the tile of as many rows and panels as there are."""

    def begin(array: int) -> Any:
        made = context.make_array(signature.args[array])
        data = made(context, builder, arguments[array]).data
        return builder.gep(data, [arguments[array + 1]])

    stored = context.get_data_type(signature.args[5].dtype)
    rows, columns, _, _, row, _, _, panel, count, _, _, place = arguments
    words = [begin(2), row, begin(5), panel, count, begin(9), place]
    for tile in _TILES:
        function = _tile_function(builder.module, *tile, stored, transposed)
        equal = [
            builder.icmp_signed("==", given, _I64(wanted))
            for given, wanted in zip((rows, columns), tile, strict=True)
        ]
        with builder.if_then(builder.and_(*equal)):
            builder.call(function, words)
    return context.get_dummy_value()


def _tile_function(
    module: Any, num_rows: int, num_panels: int, stored: Any, transposed: bool
) -> Any:
    """A tile as a function of pointers, distances, and a count; each module has one."""
    name = f"armchair_tile_{num_rows}x{num_panels}_{stored}{'_transposed' * transposed}"
    pointer, weight_pointer = _FLOAT.as_pointer(), stored.as_pointer()
    kind = ir.FunctionType(
        ir.VoidType(), [pointer, _I64, weight_pointer, _I64, _I64, pointer, _I64]
    )
    function, builder = shared_function(module, name, kind)
    if builder is None:
        return function
    x, row_distance, weights, panel_distance, count, out, place_distance = function.args
    multiply_add = cgutils.get_or_insert_function(module, _MULTIPLY_ADD, "llvm.fmuladd.v16f32")
    places, totals = {}, {}
    for row in range(num_rows):
        begin = builder.gep(out, [builder.mul(place_distance, _I64(row))])
        for column in range(num_panels):
            place = builder.gep(begin, [_I64(column * PANEL)])
            places[row, column] = builder.bitcast(place, _FLOATS.as_pointer())
            before = ir.Constant(_FLOATS, [0.0] * PANEL)
            if transposed:
                before: Any = builder.load(places[row, column])
                before.align = 4
            totals[row, column] = cgutils.alloca_once_value(builder, before)
    next_row, next_number = (_I64(1), row_distance) if transposed else (row_distance, _I64(1))
    with cgutils.for_range(builder, count) as loop:
        at = builder.gep(weights, [builder.mul(loop.index, _I64(PANEL))])
        columns = [
            _widened(builder, builder.gep(at, [builder.mul(panel_distance, _I64(column))]))
            for column in range(num_panels)
        ]
        for row in range(num_rows):
            begin = builder.gep(x, [builder.mul(next_row, _I64(row))])
            number = builder.gep(begin, [builder.mul(next_number, loop.index)])
            factor = _repeated(builder, builder.load(number))
            for column, weight in enumerate(columns):
                total = totals[row, column]
                summed = builder.call(multiply_add, [factor, weight, builder.load(total)])
                builder.store(summed, total)
    for at, total in totals.items():
        store: Any = builder.store(builder.load(total), places[at])
        store.align = 4
    builder.ret_void()
    return function


def _widened(builder: Any, pointer: Any) -> Any:
    """Sixteen weights as float32."""
    stored = pointer.type.pointee
    vector = ir.VectorType(stored, PANEL).as_pointer()
    loaded = builder.load(builder.bitcast(pointer, vector))
    if stored == _FLOAT:
        loaded.align = 4
        return loaded
    loaded.align = stored.width // 8
    if stored.width == 16:  # bfloat16, the upper half of a float32
        upper = builder.shl(builder.zext(loaded, _INTS), ir.Constant(_INTS, [16] * PANEL))
        return builder.bitcast(upper, _FLOATS)
    return builder.sitofp(builder.sext(loaded, _INTS), _FLOATS)


def _repeated(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, number, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * PANEL))


# The product of a few rows and neighbouring panels, as many as one of `_TILES`: their numbers, and
# then what `multiply` and `add_transposed` are given.
_tile, _transposed_tile = _tile_intrinsic(transposed=False), _tile_intrinsic(transposed=True)


@jit()
def multiply(
    numbers, row, row_distance, num_rows, panels, panel, panel_distance, num_panels, count, sums,
    place, place_distance,
):  # fmt: skip
    """Sums of rows times neighbouring panels.

    Args:
        numbers: Flat array of float32, in which rows are.
        row: Where the first row begins.
        row_distance: From one row to the next.
        num_rows: Rows.
        panels: Flat array of float32, of uint16, which are bfloat16, or of int8.
        panel: Where the first panel begins.
        panel_distance: From one panel to the next.
        num_panels: Panels.
        count: Numbers of a row, and as many times sixteen of a panel.
        sums: Flat array of float32, written to.
        place: Where the sums of the first row go, sixteen a panel.
        place_distance: From one row's to the next one's.
    """
    block = max(4, _BLOCK // (count * PANEL))
    for first in range(0, num_panels, block):
        last = min(first + block, num_panels)
        left, x, at = num_rows, row, place
        while left > 0:
            rows = 4 if left >= 4 else 2 if left >= 2 else 1
            number = first
            while number < last:
                width = _OF_FOUR if rows == 4 else _OF_TWO if rows == 2 else _OF_ONE
                while number + width > last:
                    width //= 2
                begin, to = panel + number * panel_distance, at + number * PANEL
                _tile(
                    rows, width, numbers, x, row_distance, panels, begin, panel_distance, count,
                    sums, to, place_distance,
                )  # fmt: skip
                number += width
            left, x, at = left - rows, x + rows * row_distance, at + rows * place_distance


@jit()
def add_transposed(
    numbers, column, row_distance, num_columns, panels, panel, panel_distance, num_panels, count,
    sums, place, place_distance,
):  # fmt: skip
    """Add to sums the columns of rows times neighbouring panels, as the gradient of a product is.

    Args:
        numbers: Flat array of float32, in which rows are.
        column: Where the first column begins.
        row_distance: From one row to the next.
        num_columns: Columns.
        panels: Flat array of float32.
        panel: Where the first panel begins.
        panel_distance: From one panel to the next.
        num_panels: Panels.
        count: Rows, and as many times sixteen numbers of a panel.
        sums: Flat array of float32, added to.
        place: Where the sums of the first column go, sixteen a panel.
        place_distance: From one column's to the next one's.
    """
    done = 0
    while done < num_columns:
        left = num_columns - done
        columns = 4 if left >= 4 else 2 if left >= 2 else 1
        number = 0
        while number < num_panels:
            width = _OF_FOUR if columns == 4 else _OF_TWO if columns == 2 else _OF_ONE
            while number + width > num_panels:
                width //= 2
            _transposed_tile(
                columns, width, numbers, column + done, row_distance,
                panels, panel + number * panel_distance, panel_distance, count,
                sums, place + done * place_distance + number * PANEL, place_distance,
            )  # fmt: skip
            number += width
        done += columns
