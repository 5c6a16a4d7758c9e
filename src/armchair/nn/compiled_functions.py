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

from armchair.core.jit import intrinsic, jit

_f = np.float32
_SMALLEST, _LARGEST = _f(-87.0), _f(88.0)
_LOG2_E = _f(1.44269504)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)  # a sum: the first has few digits
_E6, _E5, _E4, _E3, _E2 = _f(1 / 720), _f(1 / 120), _f(1 / 24), _f(1 / 6), _f(0.5)
_ONE, _TWO, _HALF = _f(1), _f(2), _f(0.5)
_L3, _L5, _L7, _L9 = _f(1 / 3), _f(1 / 5), _f(1 / 7), _f(1 / 9)
_SQRT_HALF_BITS = np.int32(np.float32(0.5**0.5).view(np.int32))

_SQRT_HALF = _f(0.7071067811865476)
# Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26: within 1.5e-7
_T = _f(0.3275911)
_A1, _A2, _A3 = _f(0.254829592), _f(-0.284496736), _f(1.421413741)
_A4, _A5 = _f(-1.453152027), _f(1.061405429)


@intrinsic
def _power_of_two(_context: Any, exponent: Any) -> Any:
    """2 to a whole number from -126 to 127: its float32 put together from bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        exponent = builder.add(arguments[0], ir.IntType(32)(127))
        return builder.bitcast(builder.shl(exponent, ir.IntType(32)(23)), ir.FloatType())

    return types.float32(types.int32), generate


@jit(fastmath={"contract"})
def exp(x):
    """E to the x; what lies outside of float32's range is taken to its end."""
    x = min(max(x, _SMALLEST), _LARGEST)
    twos = np.floor(x * _LOG2_E + _HALF)
    rest = (x - twos * _LN2_HIGH) - twos * _LN2_LOW  # |rest| <= ln(2) / 2
    series = ((((_E6 * rest + _E5) * rest + _E4) * rest + _E3) * rest + _E2) * rest + _ONE
    return (series * rest + _ONE) * _power_of_two(np.int32(twos))


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

    Of two as near the even one; infinity stays, and what is not a number is none afterwards.
    """
    i32 = ir.IntType(32)

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if array.dtype == types.float32:
            return arguments[1]
        bits = builder.bitcast(arguments[1], i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        nearest = builder.lshr(builder.add(bits, builder.add(odd, i32(0x7FFF))), i32(16))
        is_none = builder.fcmp_unordered("uno", arguments[1], arguments[1])
        return builder.trunc(builder.select(is_none, i32(0x7FC0), nearest), ir.IntType(16))

    return array.dtype(array, types.float32), generate


@jit(fastmath={"contract"})
def log(x):
    """Natural logarithm of a positive number that is not subnormal.

    With x = 2^k m and m from sqrt(1/2) to sqrt(2), ln x = k ln 2 + 2 artanh((m - 1) / (m + 1)).
    """
    above = bits_of(x) - _SQRT_HALF_BITS
    twos = _f(above >> np.int32(23))
    m = x * _power_of_two(np.int32(0) - np.int32(above >> np.int32(23)))
    s = (m - _ONE) / (m + _ONE)  # |s| < 0.172
    z = s * s
    series = ((((_L9 * z + _L7) * z + _L5) * z + _L3) * z) * s + s
    return twos * _LN2_HIGH + (_TWO * series + twos * _LN2_LOW)


@jit(fastmath={"contract"})
def gelu(x):
    """X · Φ(x), Φ the distribution function of the normal distribution."""
    z = abs(x) * _SQRT_HALF
    t = _ONE / (_ONE + _T * z)
    tail = ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t * exp(-z * z) * _HALF
    return x * _HALF + abs(x) * (_HALF - tail)


@jit(fastmath={"contract", "reassoc"})
def layer_norm(x, gain, bias, eps, output):
    """Normalise `x`, D, into `output`."""
    scale = _ONE / _f(len(x))
    total = _f(0)
    for number in x:
        total += number
    mean = total * scale
    squares = _f(0)
    for number in x:
        squares += (number - mean) * (number - mean)
    factor = _ONE / np.sqrt(squares * scale + eps)
    for i in range(len(x)):
        output[i] = (x[i] - mean) * factor * gain[i] + bias[i]


@jit(fastmath={"contract", "reassoc", "nnan", "nsz"})
def softmax(scores, factor):
    """Of scores times a positive factor, in place."""
    highest, total = scores[0], _f(0)
    for score in scores:
        highest = max(highest, score)
    for i in range(len(scores)):
        scores[i] = exp((scores[i] - highest) * factor)
    for score in scores:
        total += score
    scale = _ONE / total
    for i in range(len(scores)):
        scores[i] *= scale
