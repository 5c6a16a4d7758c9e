"""Products of bfloat16 matrices in the tile registers that newer Intel processors have (AMX).

A tile holds sixteen rows of 64 bytes. One instruction multiplies sixteen rows of 32 bfloat16 with
sixteen columns of as many, and adds the products, in float32, to the 256 sums of a third tile.
Rows lie in memory as they are; the columns' matrix has its rows in pairs:

    columns[p, n, i] = matrix[2 p + i, n]           16 pairs, 16 columns, 2

    configure_tiles()
    multiply_tiles(...)                             # as often as one likes
    release_tiles()

A product that sums over the rows of two matrices wants those of one paired (`pair_rows`) and those
of the other turned (`turn_rows`). Products are for where `has_amx()` says so; elsewhere they do
nothing.

Source: Intel, "64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from armchair.core.jit import intrinsic, jit, shared_function
from armchair.core.vectors import pairs, processor_has, store_words, transpose

TILE = 16
"""Rows of a tile, and columns; it holds twice as many bfloat16 in a row."""
BLOCK = 2 * TILE
"""Rows and columns of what `multiply_tiles` gives at once."""

_CONFLICT = 256  # numbers of 16 bits; rows a multiple apart drive each other from the first cache

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # Linux, x86-64

_I8, _I64, _VOID = ir.IntType(8), ir.IntType(64), ir.VoidType()
_BYTES = _I8.as_pointer()
_PALETTE = bytes([1] + [0] * 15 + [4 * TILE, 0] * 8 + [0] * 16 + [TILE] * 8 + [0] * 8)


@jit()
def apart(count: int) -> int:
    """Numbers from one row of so many to the next, in whole blocks; see `_CONFLICT`."""
    whole = count + -count % BLOCK
    return whole + BLOCK if whole % _CONFLICT == 0 else whole


def _compiles_for_amx() -> bool:
    return all(processor_has(name) for name in ("amx-tile", "amx-bf16", "avx512bf16"))


@functools.cache
def has_amx() -> bool:
    """Whether this process may multiply in tiles; asks Linux for it."""
    if not (sys.platform.startswith("linux") and platform.machine() == "x86_64"):
        return False
    if not _compiles_for_amx():
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


def _instruct(builder: Any, name: str, *arguments: Any) -> None:
    if not _compiles_for_amx():
        return
    kind = ir.FunctionType(_VOID, [argument.type for argument in arguments])
    instruction = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    builder.call(instruction, arguments)


@intrinsic
def configure_tiles(_: Any) -> Any:
    """Have all eight tiles whole; before a thread's first product."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        module, kind = builder.module, ir.ArrayType(_I8, len(_PALETTE))
        name = module.get_unique_name("armchair_palette")
        palette: Any = ir.GlobalVariable(module, kind, name)
        palette.global_constant, palette.linkage = True, "internal"
        palette.initializer = kind(bytearray(_PALETTE))
        _instruct(builder, "ldtilecfg", builder.bitcast(palette, _BYTES))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def release_tiles(_: Any) -> Any:
    """Give the tiles back, after a thread's last product."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _instruct(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def multiply_tiles(
    _: Any,
    num_rows: Any,
    num_columns: Any,
    is_added: Any,
    rows: Any,
    row: Any,
    row_distance: Any,
    rows_step: Any,
    columns: Any,
    column: Any,
    columns_distance: Any,
    steps: Any,
    sums: Any,
    place: Any,
    place_distance: Any,
) -> Any:
    """Sums of up to 32 rows times up to 32 columns, 32 terms a step.

    Args:
        num_rows: Sixteens of rows: 1 or 2.
        num_columns: Sixteens of columns: 1 or 2.
        is_added: Whether to add to the sums.
        rows: Flat array of bfloat16 as uint16.
        row: Where the first row begins.
        row_distance: From one row to the next.
        rows_step: From one step to the next.
        columns: Flat array of bfloat16 as uint16, in pairs, 512 to a step.
        column: Where the first columns begin.
        columns_distance: From there to the other sixteen.
        steps: How many.
        sums: Flat array of float32, written to or added to.
        place: Where the sums of the first row go.
        place_distance: From one row's to the next one's.
    """
    signature = types.void(
        *(num_rows, num_columns, is_added, rows, row, row_distance, rows_step),
        *(columns, column, columns_distance, steps, sums, place, place_distance),
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def begin(number: int) -> Any:
            made = context.make_array(signature.args[number])
            data = made(context, builder, arguments[number]).data
            return builder.bitcast(builder.gep(data, [arguments[number + 1]]), _BYTES)

        def in_bytes(number: int, itemsize: int) -> Any:
            return builder.mul(arguments[number], _I64(itemsize))

        words = [
            *(begin(3), in_bytes(5, 2), in_bytes(6, 2), begin(7), in_bytes(9, 2), arguments[10]),
            *(begin(11), in_bytes(13, 4), arguments[2]),
        ]
        for high, wide in itertools.product((1, 2), repeat=2):
            equal = [
                builder.icmp_signed("==", given, _I64(wanted))
                for given, wanted in zip(arguments[:2], (high, wide), strict=True)
            ]
            with builder.if_then(builder.and_(*equal)):
                builder.call(_product(builder.module, high, wide, words), words)
        return context.get_dummy_value()

    return signature, generate


def _product(module: Any, high: int, wide: int, words: list[Any]) -> Any:
    """The product as a function of bytes; each module has one of each size."""
    kind = ir.FunctionType(_VOID, [word.type for word in words])
    name = f"armchair_amx_{high}x{wide}"
    function, builder = shared_function(module, name, kind)
    if builder is None:
        return function
    rows, row_distance, rows_step, columns, columns_distance, steps, sums, distance, is_added = (
        function.args
    )
    places = {
        (i, j): builder.gep(
            sums, [builder.add(builder.mul(distance, _I64(TILE * i)), _I64(4 * TILE * j))]
        )
        for i in range(high)
        for j in range(wide)
    }

    def of(i: int, j: int) -> Any:
        return _I8(2 * i + j)

    with builder.if_else(is_added) as (then, otherwise):
        with then:
            for at, place in places.items():
                _instruct(builder, "tileloadd64", of(*at), place, distance)
        with otherwise:
            for at in places:
                _instruct(builder, "tilezero", of(*at))
    with cgutils.for_range(builder, steps) as loop:
        left = builder.gep(rows, [builder.mul(loop.index, rows_step)])
        right = builder.gep(columns, [builder.mul(loop.index, _I64(4 * TILE * TILE))])
        for i in range(high):
            begin = builder.gep(left, [builder.mul(row_distance, _I64(TILE * i))])
            _instruct(builder, "tileloadd64", _I8(4 + i), begin, row_distance)
        for j in range(wide):
            begin = builder.gep(right, [builder.mul(columns_distance, _I64(j))])
            _instruct(builder, "tileloadd64", _I8(6 + j), begin, _I64(4 * TILE))
        for i, j in places:
            _instruct(builder, "tdpbf16ps", of(i, j), _I8(4 + i), _I8(6 + j))
    for at, place in places.items():
        _instruct(builder, "tilestored64", of(*at), place, distance)
    builder.ret_void()
    return function


@jit()
def pair_rows(source, begin, row_distance, num_rows, width, target, to, distance):
    """Lay out rows as columns of a product that sums over them.

    Args:
        source: Flat array of bfloat16 as uint16.
        begin: Where the first row begins.
        row_distance: From one row to the next.
        num_rows: An even number.
        width: Of a row, a multiple of 16.
        target: Flat array of uint16, written to: W/16 R/2 16 2.
        to: Where it begins.
        distance: From sixteen columns to the next, over 16; R if nothing lies between.
    """
    for row in range(0, num_rows, 2):
        for i in range(0, width, TILE):
            at = begin + row * row_distance + i
            words = pairs(source, at, at + row_distance)
            store_words(target, to + i * distance + row * TILE, words)


@jit()
def turn_rows(source, begin, row_distance, num_rows, width, target, to, distance, square):
    """Lay out rows as rows of a product that sums over them: each column becomes one.

    Args:
        source: See `pair_rows`.
        begin: See there.
        row_distance: See there.
        num_rows: A multiple of 32.
        width: See there.
        target: Flat array of uint16, written to: W R.
        to: Where it begins.
        distance: From one row of the target to the next; R if nothing lies between.
        square: Where 512 numbers of the target may be written to on the way.
    """
    for row in range(0, num_rows, BLOCK):
        for i in range(0, width, TILE):
            at = begin + row * row_distance + i
            for two in range(0, BLOCK, 2):
                words = pairs(source, at + two * row_distance, at + (two + 1) * row_distance)
                store_words(target, square + two * TILE, words)
            transpose(target, square, BLOCK, target, to + i * distance + row, distance)
