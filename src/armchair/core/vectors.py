"""Vectors of sixteen numbers as values of compiled functions.

    total = spread(zero)
    for at in range(0, size, LANES):
        total = total + load(numbers, at) * load(weights, at)     # weights float32, or bfloat16
    store(sums, 0, total)

`Floats` are sixteen float32, `Words` sixteen pairs of bfloat16. Where loops over single numbers
become vectors anyway they are the plainer way; these are for what compilers do not find: columns
that are added up, pairs, transposition.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils, config
from numba.extending import models, overload, register_model

from armchair.core.jit import intrinsic, shared_function

LANES = 16

_FLOAT, _I16, _I32, _I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS, _WORDS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_I32, LANES)
_HALVES = ir.VectorType(_I16, LANES)


class _VectorType(types.Type):
    """The type of a vector's values, for numba."""


FLOATS, WORDS = _VectorType("Floats"), _VectorType("Words")


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS if kind is FLOATS else _WORDS)


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def processor_has(feature: str) -> bool:
    """Whether code is compiled for a processor with this feature, as LLVM calls it."""
    settings: Any = config
    if settings.CPU_FEATURES:
        return f"+{feature}" in settings.CPU_FEATURES.split(",")
    return not settings.CPU_NAME and bool(get_host_cpu_features().get(feature))


def narrowed(builder: Any, numbers: Any) -> Any:
    """The bits of the nearest bfloat16 of each float32, one or a vector.

    Of two as near the even one; infinity stays, and what is not a number is none afterwards.
    """
    count = getattr(numbers.type, "count", None)

    def of(kind: Any) -> Any:
        return ir.VectorType(kind, count) if count else kind

    def all_are(number: int) -> Any:
        return ir.Constant(of(_I32), [number] * count if count else number)

    if count and processor_has("avx512bf16"):
        return builder.bitcast(builder.fptrunc(numbers, of(_BFloat())), of(_I16))
    bits = builder.bitcast(numbers, of(_I32))
    odd = builder.and_(builder.lshr(bits, all_are(16)), all_are(1))
    nearest = builder.lshr(builder.add(bits, builder.add(odd, all_are(0x7FFF))), all_are(16))
    is_none = builder.fcmp_unordered("uno", numbers, numbers)
    return builder.trunc(builder.select(is_none, all_are(0x7FC0), nearest), of(_I16))


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [at])


def _loaded(builder: Any, place: Any, vector: Any) -> Any:
    loaded = builder.load(builder.bitcast(place, vector.as_pointer()))
    loaded.align = 2
    return loaded


def _stored(builder: Any, numbers: Any, place: Any) -> None:
    stored = builder.store(numbers, builder.bitcast(place, numbers.type.as_pointer()))
    stored.align = 2


@intrinsic
def load(_: Any, array: Any, at: Any) -> Any:
    """Sixteen of an array of float32, or of bfloat16 as uint16, which are widened."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments)
        if array.dtype == types.float32:
            return _loaded(builder, place, _FLOATS)
        halves = builder.zext(_loaded(builder, place, _HALVES), _WORDS)
        return builder.bitcast(builder.shl(halves, _WORDS([16] * LANES)), _FLOATS)

    return FLOATS(array, at), generate


@intrinsic
def store(_: Any, array: Any, at: Any, numbers: Any) -> Any:
    """Write sixteen to an array of float32, or to one of uint16 as the nearest bfloat16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments[:2])
        is_wide = array.dtype == types.float32
        _stored(builder, arguments[2] if is_wide else narrowed(builder, arguments[2]), place)
        return context.get_dummy_value()

    return types.void(array, at, numbers), generate


@intrinsic
def prefetch(_: Any, array: Any, at: Any) -> Any:
    """Ask for what lies here in an array before it is needed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments)
        place = builder.bitcast(place, ir.IntType(8).as_pointer())
        words = [place, _I32(0), _I32(3), _I32(1)]  # to read, into the first cache; data
        kind = ir.FunctionType(ir.VoidType(), [word.type for word in words])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, words)
        return context.get_dummy_value()

    return types.void(array, at), generate


@intrinsic
def load_first(_: Any, array: Any, at: Any, count: Any) -> Any:
    """As many as there are of what `load` gives, up to sixteen, and zeros after them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = _place(context, builder, signature.args[0], *arguments[:2])
        lanes = cgutils.alloca_once_value(builder, _FLOATS([0.0] * LANES))
        first = builder.bitcast(lanes, _FLOAT.as_pointer())
        with cgutils.for_range(builder, arguments[2]) as loop:
            number = builder.load(builder.gep(begin, [loop.index]))
            if array.dtype != types.float32:
                upper = builder.shl(builder.zext(number, _I32), _I32(16))
                number = builder.bitcast(upper, _FLOAT)
            builder.store(number, builder.gep(first, [loop.index]))
        return builder.load(lanes)

    return FLOATS(array, at, count), generate


@intrinsic
def store_first(_: Any, array: Any, at: Any, count: Any, numbers: Any) -> Any:
    """Write only so many of what `store` writes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = _place(context, builder, signature.args[0], *arguments[:2])
        first = builder.bitcast(
            cgutils.alloca_once_value(builder, arguments[3]), _FLOAT.as_pointer()
        )
        with cgutils.for_range(builder, arguments[2]) as loop:
            number = builder.load(builder.gep(first, [loop.index]))
            if array.dtype != types.float32:
                number = narrowed(builder, number)
            builder.store(number, builder.gep(begin, [loop.index]))
        return context.get_dummy_value()

    return types.void(array, at, count, numbers), generate


@intrinsic
def load_words(_: Any, array: Any, at: Any) -> Any:
    """Sixteen pairs of an array of uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _loaded(builder, _place(context, builder, signature.args[0], *arguments), _WORDS)

    return WORDS(array, at), generate


@intrinsic
def store_words(_: Any, array: Any, at: Any, words: Any) -> Any:
    """Write sixteen pairs to an array of uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _stored(builder, arguments[2], _place(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, at, words), generate


@intrinsic
def pairs(_: Any, array: Any, one: Any, other: Any) -> Any:
    """Pairs of sixteen bfloat16 here and sixteen there in an array of uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lower, upper = (
            builder.zext(
                _loaded(
                    builder,
                    _place(context, builder, signature.args[0], arguments[0], at),
                    _HALVES,
                ),
                _WORDS,
            )
            for at in arguments[1:]
        )
        return builder.or_(lower, builder.shl(upper, _WORDS([16] * LANES)))

    return WORDS(array, one, other), generate


@intrinsic
def paired(_: Any, lower: Any, upper: Any) -> Any:
    """Pairs of the nearest bfloat16 of one vector and another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high = (builder.zext(narrowed(builder, one), _WORDS) for one in arguments)
        return builder.or_(low, builder.shl(high, _WORDS([16] * LANES)))

    return WORDS(lower, upper), generate


@intrinsic
def as_bfloat16(_: Any, numbers: Any) -> Any:
    """The nearest bfloat16 of each, as a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        halves = builder.zext(narrowed(builder, arguments[0]), _WORDS)
        return builder.bitcast(builder.shl(halves, _WORDS([16] * LANES)), _FLOATS)

    return FLOATS(numbers), generate


@intrinsic
def spread(_: Any, number: Any) -> Any:
    """A float32, sixteen times."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = builder.insert_element(_FLOATS(ir.Undefined), arguments[0], _I32(0))
        return builder.shuffle_vector(first, first, _WORDS([0] * LANES))

    return FLOATS(number), generate


@intrinsic
def transpose(
    _: Any, array: Any, at: Any, distance: Any, target: Any, to: Any, to_distance: Any
) -> Any:
    """Transpose sixteen rows of sixteen words of 32 bits: float32, or pairs in arrays of uint16.

    Rows begin `distance` numbers after each other, and are written `to_distance` after each other.
    """
    signature = types.void(array, at, distance, target, to, to_distance)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start, step, target, to, to_step = arguments
        begin = _place(context, builder, signature.args[0], source, start)
        end = _place(context, builder, signature.args[3], target, to)
        builder.call(
            _transposition(builder.module, begin.type, end.type), [begin, step, end, to_step]
        )
        return context.get_dummy_value()

    return signature, generate


def _transposition(module: Any, source: Any, target: Any) -> Any:
    kind = ir.FunctionType(ir.VoidType(), [source, _I64, target, _I64])
    name = f"armchair_transpose_{source.pointee}_{target.pointee}"
    function, builder = shared_function(module, name, kind)
    if builder is None:
        return function
    begin, step, end, to_step = function.args
    rows = [
        _loaded(builder, builder.gep(begin, [builder.mul(step, _I64(row))]), _WORDS)
        for row in range(LANES)
    ]
    size = LANES // 2
    while size:  # exchange the off-diagonal quarters of squares of twice this size
        low = [lane if not lane & size else lane - size + LANES for lane in range(LANES)]
        high = [lane + size if not lane & size else lane + LANES for lane in range(LANES)]
        mixed: list[Any] = list(rows)
        for row in range(LANES):
            if not row & size:
                two = (rows[row], rows[row + size])
                mixed[row] = builder.shuffle_vector(*two, _WORDS(low))
                mixed[row + size] = builder.shuffle_vector(*two, _WORDS(high))
        rows, size = mixed, size // 2
    for row, words in enumerate(rows):
        _stored(builder, words, builder.gep(end, [builder.mul(to_step, _I64(row))]))
    builder.ret_void()
    return function


def _arithmetic(operation: Any, name: str) -> Any:
    """Have an operator of Python work on two vectors."""

    @intrinsic
    def apply(_: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments, flags=("contract",))

        return FLOATS(x, y), generate

    @overload(operation, strict=False)
    def overloaded(x: Any, y: Any) -> Any:
        # Numba wants a function of its own here, not an intrinsic.
        return (lambda x, y: apply(x, y)) if x is FLOATS and y is FLOATS else None  # noqa: PLW0108

    return overloaded


_OPERATORS = [
    _arithmetic(operator.add, "fadd"),
    _arithmetic(operator.sub, "fsub"),
    _arithmetic(operator.mul, "fmul"),
    _arithmetic(operator.truediv, "fdiv"),
]


@intrinsic
def larger(_: Any, x: Any, y: Any) -> Any:
    """The larger of each two; y where x is not a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return FLOATS(x, y), generate


@intrinsic
def zero_below(_: Any, least: Any, x: Any, y: Any) -> Any:
    """0 where x is less than so much, y elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        least, x, y = arguments
        is_less = builder.fcmp_ordered("<", x, least)
        return builder.select(is_less, _FLOATS([0.0] * LANES), y)

    return FLOATS(least, x, y), generate


def folded(builder: Any, numbers: Any, join: Any) -> Any:
    """One number of a vector's sixteen: its halves are joined, then that's, until one is left."""
    size = LANES // 2
    while size:
        other = _WORDS([(lane + size) % LANES for lane in range(LANES)])
        numbers = join(numbers, builder.shuffle_vector(numbers, numbers, other))
        size //= 2
    return builder.extract_element(numbers, _I32(0))


@intrinsic
def sum_of(_: Any, x: Any) -> Any:
    """The sum of sixteen numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return folded(builder, arguments[0], builder.fadd)

    return types.float32(x), generate


@intrinsic
def chosen(_: Any, bits: Any, at: Any, x: Any, y: Any) -> Any:
    """X where the bits of a number of an array of uint16 are set, the lowest first; y elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments[:2])
        mask = builder.bitcast(builder.load(place), ir.VectorType(ir.IntType(1), LANES))
        return builder.select(mask, *arguments[2:])

    return FLOATS(bits, at, x, y), generate


def _unary(name: str, doc: str) -> Any:
    @intrinsic
    def apply(_: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(_FLOATS, [_FLOATS])
            called = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v16f32")
            return builder.call(called, arguments)

        return FLOATS(x), generate

    apply.__doc__ = doc
    return apply


@intrinsic
def smaller(_: Any, x: Any, y: Any) -> Any:
    """The smaller of each two; y where x is not a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *arguments), *arguments)

    return FLOATS(x, y), generate


@intrinsic
def rough_reciprocal(_: Any, x: Any) -> Any:
    """1 / x: with AVX512 within 2^-14 of itself, otherwise exactly."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not processor_has("avx512f"):
            return builder.fdiv(_FLOATS([1.0] * LANES), arguments[0])
        words = [arguments[0], _FLOATS(ir.Undefined), _I16(-1)]  # all lanes
        kind = ir.FunctionType(_FLOATS, [word.type for word in words])
        name = "llvm.x86.avx512.rcp14.ps.512"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), words)

    return FLOATS(x), generate


rounded = _unary("roundeven", "The nearest whole number of each, of two as near the even one.")


@intrinsic
def scaled(_: Any, x: Any, twos: Any) -> Any:
    """X times 2 to whole numbers from -126 to 127; with AVX512 also to smaller ones, to zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if processor_has("avx512f"):
            words = [*arguments, _FLOATS(ir.Undefined), _I16(-1), _I32(4)]  # all lanes; as ever
            kind = ir.FunctionType(_FLOATS, [word.type for word in words])
            name = "llvm.x86.avx512.mask.scalef.ps.512"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), words)
        whole = builder.fptosi(arguments[1], _WORDS)
        bits = builder.shl(builder.add(whole, _WORDS([127] * LANES)), _WORDS([23] * LANES))
        return builder.fmul(arguments[0], builder.bitcast(bits, _FLOATS))

    return FLOATS(x, twos), generate
