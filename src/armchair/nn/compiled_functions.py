"""What networks compute between their products, for compiled functions: in float32, row by row.

Each gives what torch's function of the same name gives, to within rounding; none calls a library,
so that loops over them become vector instructions.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from armchair.core.jit import intrinsic, jit
from armchair.core.vectors import (
    LANES,
    folded,
    larger,
    load,
    narrowed,
    rough_reciprocal,
    rounded,
    scaled,
    smaller,
    spread,
    store,
    sum_of,
    zero_below,
)

_f = np.float32
_SMALLEST, _LARGEST = _f(-87.0), _f(88.0)
_NEGLIGIBLE = _f(-74.0)
_LOG2_E = _f(1.44269504)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)  # a sum: the first has few digits
_E6, _E5, _E4, _E3, _E2 = _f(1 / 720), _f(1 / 120), _f(1 / 24), _f(1 / 6), _f(0.5)
# 2 to the x for x from -1/2 to 1/2, fitted so that it is within 1e-7 of itself
_P0, _P1, _P2 = _f(1.00000007), _f(0.693146967), _f(0.240221197)
_P3, _P4, _P5 = _f(0.0555071327), _f(0.00967554133), _f(0.00132764716)
# Φ(x) is 1 / (1 + 2^(-x p(x²))) with this p, fitted so that GELU is within 1e-7 of itself; and the
# coefficients of ln 2 (x p(x²))'
_G0, _G1, _G2 = _f(2.30220735), _f(0.104838194), _f(-9.52950192e-05)
_G3, _G4 = _f(-0.000159485252), _f(1.14667403e-05)
_G5, _G6 = _f(-3.86016466e-07), _f(5.2338822e-09)
_D0, _D1, _D2 = _f(1.59576854), _f(0.218004895), _f(-0.000330267369)
_D3, _D4 = _f(-0.000773827268), _f(7.15332482e-05)
_D5, _D6 = _f(-2.94322847e-06), _f(4.7162059e-08)
_FAR, _TWO = _f(7), _f(2)
_ZERO, _ONE, _HALF = _f(0), _f(1), _f(0.5)
# (ln(1 + x) - x + x²/2) / x³, fitted so that ln(1 + x) is within 3.2e-8 of itself
_L3, _L4, _L5, _L6 = _f(0.3333391), _f(-0.25001338), _f(0.19963062), _f(-0.16577587)
_L7, _L8, _L9 = _f(0.14914787), _f(-0.14267476), _f(0.0870036)
_SQRT_HALF_BITS = np.int32(np.float32(0.5**0.5).view(np.int32))


def _power_intrinsic(whole: Any, number: Any, *, bias: int, digits: int) -> Any:
    bits = ir.IntType(whole.bitwidth)

    @intrinsic
    def power(_: Any, exponent: Any) -> Any:
        def generate(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
            exponent = builder.shl(builder.add(arguments[0], bits(bias)), bits(digits))
            return builder.bitcast(exponent, context.get_value_type(number))

        return number(whole), generate

    return power


# 2 to a whole number, from -126 to 127 or from -1022 to 1023, put together from bits.
_power_of_two = _power_intrinsic(types.int32, types.float32, bias=127, digits=23)
_power_of_two_64 = _power_intrinsic(types.int64, types.float64, bias=1023, digits=52)


@jit(fastmath={"contract"})
def exp(x):
    """E to the x; what lies outside of float32's range is taken to its end."""
    x = min(max(x, _SMALLEST), _LARGEST)
    twos = np.floor(x * _LOG2_E + _HALF)
    rest = (x - twos * _LN2_HIGH) - twos * _LN2_LOW  # |rest| <= ln(2) / 2
    series = ((((_E6 * rest + _E5) * rest + _E4) * rest + _E3) * rest + _E2) * rest + _ONE
    return (series * rest + _ONE) * _power_of_two(np.int32(twos))


@jit()
def exp2(x):
    """2 to each of sixteen numbers, within 3e-7 of itself; `scaled` says how small they may be."""
    twos = rounded(x)
    rest = x - twos  # from -1/2 to 1/2
    series = spread(_P5) * rest + spread(_P4)
    series = series * rest + spread(_P3)
    series = series * rest + spread(_P2)
    series = series * rest + spread(_P1)
    return scaled(series * rest + spread(_P0), twos)


@jit()
def _power(x):
    """2 to the -x p(x²), of which Φ(x) is 1 over 1 more."""
    u = x * x
    series = spread(_G6) * u + spread(_G5)
    series = series * u + spread(_G4)
    series = series * u + spread(_G3)
    series = series * u + spread(_G2)
    series = series * u + spread(_G1)
    return exp2((series * u + spread(_G0)) * (spread(_ZERO) - x))


@jit()
def _reciprocal(x):
    """1 / x, by one step of Newton's method."""
    y = rough_reciprocal(x)
    return y * (spread(_TWO) - x * y)


@jit()
def _within(x):
    """Outside of this, GELU is 0 or x in float32. What is not a number stays none."""
    return larger(spread(-_FAR), smaller(spread(_FAR), x))


@jit()
def gelu(x):
    """X · Φ(x) of sixteen numbers, Φ the distribution function of the normal distribution."""
    return x * _reciprocal(spread(_ONE) + _power(_within(x)))


@jit()
def gelu_slope(x):
    """The derivative of GELU at sixteen numbers, Φ(x) + x φ(x)."""
    near = _within(x)
    power = _power(near)
    share = _reciprocal(spread(_ONE) + power)  # Φ(x); 1 - Φ(x) is it times the power
    u = near * near
    series = spread(_D6) * u + spread(_D5)
    series = series * u + spread(_D4)
    series = series * u + spread(_D3)
    series = series * u + spread(_D2)
    series = series * u + spread(_D1)
    series = series * u + spread(_D0)
    return share + near * (power * share * share) * series


@jit(fastmath={"contract"})
def exp_64(x):
    """E to the x in float64, for x up to 0; below -700 it is e to the -700."""
    x = max(x, -700.0)
    twos = np.floor(x * 1.4426950408889634 + 0.5)
    rest = (x - twos * 0.693147180369123816490) - twos * 1.90821492927058770002e-10
    series = 1 / 6227020800  # 1 / 13!, and all the way to 1 / 2!: |rest| <= ln(2) / 2
    series = series * rest + 1 / 479001600
    series = series * rest + 1 / 39916800
    series = series * rest + 1 / 3628800
    series = series * rest + 1 / 362880
    series = series * rest + 1 / 40320
    series = series * rest + 1 / 5040
    series = series * rest + 1 / 720
    series = series * rest + 1 / 120
    series = series * rest + 1 / 24
    series = series * rest + 1 / 6
    series = series * rest + 0.5
    return ((series * rest + 1.0) * rest + 1.0) * _power_of_two_64(np.int64(twos))


@intrinsic
def bits_of(_context: Any, number: Any) -> Any:
    """Of a float32, as an int32."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def widened(_context: Any, number: Any) -> Any:
    """A float32 as it is, or that of a bfloat16's bits, which are a uint16."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        upper = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(upper, ir.FloatType())

    return types.float32(number), generate


@intrinsic
def stored_in(_context: Any, array: Any, number: Any) -> Any:
    """A float32 as `array` has its numbers: as it is, or the bits of the nearest bfloat16.

    Of two as near the even one; infinity stays, and what is not a number is none afterwards. In an
    array of int8 it is cut off.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if array.dtype == types.float32:
            return arguments[1]
        if array.dtype == types.int8:
            return builder.fptosi(arguments[1], ir.IntType(8))
        return narrowed(builder, arguments[1])

    return array.dtype(array, types.float32), generate


@intrinsic
def _twos_away(_context: Any, number: Any) -> Any:
    """Minus the k of the logarithm, an int32 all along: numba would compute in 64 bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(32))
        above = builder.sub(bits, ir.IntType(32)(int(_SQRT_HALF_BITS)))
        return builder.neg(builder.ashr(above, ir.IntType(32)(23)))

    return types.int32(types.float32), generate


@jit(fastmath={"contract"})
def log(x):
    """Natural logarithm of a positive number that is not subnormal.

    With x = 2^k m and m from sqrt(1/2) to sqrt(2), ln x = k ln 2 + ln m.
    """
    away = _twos_away(x)
    twos, rest = -_f(away), x * _power_of_two(away) - _ONE
    series = (((((_L9 * rest + _L8) * rest + _L7) * rest + _L6) * rest + _L5) * rest + _L4) * rest
    curve = ((series + _L3) * rest - _HALF) * rest * rest + twos * _LN2_LOW
    return twos * _LN2_HIGH + (rest + curve)


@jit(fastmath={"contract", "reassoc"})
def moments(x, eps):
    """The mean of numbers, and one over their deviation.

    Here and elsewhere sums go by index: of a loop over the numbers themselves compilers make no
    vectors.
    """
    scale, total, squares = _ONE / _f(len(x)), _ZERO, _ZERO
    for i in range(len(x)):
        total += x[i]
    mean = total * scale
    for i in range(len(x)):
        squares += (x[i] - mean) * (x[i] - mean)
    return mean, _ONE / np.sqrt(squares * scale + eps)


@jit(fastmath={"contract"})
def layer_norm(x, gain, bias, eps, output):
    """Normalise `x`, D, into `output`."""
    mean, factor = moments(x, eps)
    for i in range(len(x)):
        output[i] = (x[i] - mean) * factor * gain[i] + bias[i]


@intrinsic
def largest(_context: Any, numbers: Any) -> Any:
    """Of an array of float32, in vectors, which compilers make of no such loop.

    What is not a number is passed over; of nothing else, -inf.
    """
    float_, i64 = ir.FloatType(), ir.IntType(64)
    vector = ir.VectorType(float_, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        count = builder.extract_value(array.shape, 0)
        whole = builder.and_(count, i64(-LANES))
        start = ir.Constant(vector, [float("-inf")] * LANES)
        highest = cgutils.alloca_once_value(builder, start)

        def above(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        with cgutils.for_range_slice(builder, i64(0), whole, i64(LANES)) as (index, _):
            place = builder.bitcast(builder.gep(array.data, [index]), vector.as_pointer())
            loaded = builder.load(place)
            loaded.align = 4
            builder.store(above(loaded, builder.load(highest)), highest)
        found = cgutils.alloca_once_value(builder, folded(builder, builder.load(highest), above))
        with cgutils.for_range_slice(builder, whole, count, i64(1)) as (index, _):
            number = builder.load(builder.gep(array.data, [index]))
            builder.store(above(number, builder.load(found)), found)
        return builder.load(found)

    return types.float32(numbers), generate


@jit(fastmath={"contract"})
def exp_sum(scores, factor):
    """Make scores e to the (score - largest) · factor, factor above 0; the largest, and the sum.

    What would be below 1e-32 becomes 0. Smaller numbers, scaled, would be subnormal, which cost a
    hundred times what others do.
    """
    highest, whole = largest(scores), len(scores) - len(scores) % LANES
    sums = spread(_ZERO)
    for i in range(0, whole, LANES):
        below = (load(scores, i) - spread(highest)) * spread(factor * _LOG2_E)
        least = spread(_NEGLIGIBLE * _LOG2_E)
        powers = zero_below(least, below, exp2(larger(least, below)))
        store(scores, i, powers)
        sums = sums + powers
    total = sum_of(sums)
    for i in range(whole, len(scores)):
        below = (scores[i] - highest) * factor
        scores[i] = _ZERO if below < _NEGLIGIBLE else exp(below)
        total += scores[i]
    return highest, total


@jit()
def softmax(scores, factor):
    """Of scores times a positive factor, in place; see `exp_sum`."""
    _, total = exp_sum(scores, factor)
    scale, whole = _ONE / total, len(scores) - len(scores) % LANES
    for i in range(0, whole, LANES):
        store(scores, i, load(scores, i) * spread(scale))
    for i in range(whole, len(scores)):
        scores[i] *= scale
