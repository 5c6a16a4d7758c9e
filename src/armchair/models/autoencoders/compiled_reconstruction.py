"""The loops of `reconstruction.py`, compiled for a CPU: the loss and its gradient in one pass."""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np

from armchair.core.jit import jit, piece
from armchair.models.autoencoders.likelihoods import EPSILON
from armchair.nn.compiled_functions import exp, log

_f = np.float32
_ZERO, _HALF, _ONE, _TWO = _f(0), _f(0.5), _f(1), _f(2)
_EPSILON, _RANGE, _PER_RANGE = _f(EPSILON), _f(1 - 2 * EPSILON), _f(1 / (1 - 2 * EPSILON))
_LN_2 = _f(np.log(2))
_RUN = 1024  # pixels under one sum in float32


@jit(fastmath={"contract", "reassoc"})
def _run(
    pixels, means, log_scales, error_weight, nll_weight, means_learn, scale, d_means, d_log_scales
):
    """The loss of a few pixels; writes its gradients."""
    total = _ZERO
    for i in range(len(pixels)):
        unit = (pixels[i] + _ONE) * _HALF
        x = unit * _RANGE + _EPSILON
        log_x, log_rest = log(x), log(_ONE - x)
        per_scale = exp(-log_scales[i])
        away = means[i] - (log_x - log_rest)
        scaled = abs(away) * per_scale
        nll = scaled + log_scales[i] + _LN_2 + log_x + log_rest
        d_nll = per_scale if away > _ZERO else -per_scale if away < _ZERO else _ZERO

        sigmoid = _ONE / (_ONE + exp(-means[i]))
        error = (sigmoid - _EPSILON) * _PER_RANGE - unit
        sign = _ONE if error > _ZERO else -_ONE if error < _ZERO else _ZERO
        slope = sigmoid * (_ONE - sigmoid) * _PER_RANGE
        d_error = (sign + _TWO * error) * slope

        total += error_weight * (abs(error) + error * error) + nll_weight * nll
        d_means[i] = (error_weight * d_error + means_learn * nll_weight * d_nll) * scale
        d_log_scales[i] = nll_weight * (_ONE - scaled) * scale
    return total


@jit()
def reconstruct(
    images, statistics, error_weight, nll_weight, means_learn, scale, totals, d_statistics, thread,
    num_threads, _counter,
):  # fmt: skip
    """The loss of each picture, and its gradient with regard to its statistics.

    Args:
        images: Flat: B 3 H W.
        statistics: Flat: B 6 H W.
        error_weight: Of |d| + d².
        nll_weight: Of the negative log-likelihood.
        means_learn: 1, or 0 where means have no gradient from the likelihood.
        scale: Of the gradient, but not of the totals.
        totals: B, written to, in float64.
        d_statistics: Flat, written to: B 6 H W.
        thread: Of this call.
        num_threads: How many share the pictures.
    """
    size = len(images) // len(totals)
    for picture in range(thread, len(totals), num_threads):
        total = 0.0
        for start in range(0, size, _RUN):
            count = min(_RUN, size - start)
            of_means = 2 * picture * size + start
            of_scales = of_means + size
            total += _run(
                piece(images, picture * size + start, count),
                piece(statistics, of_means, count), piece(statistics, of_scales, count),
                error_weight, nll_weight, means_learn, scale,
                piece(d_statistics, of_means, count), piece(d_statistics, of_scales, count),
            )  # fmt: skip
        totals[picture] = total


@jit(fastmath={"contract"})
def _add_row(pixels, means, errors):
    """Add the absolute errors of a row of pixels, in the range of 2 that pictures have."""
    for i in range(len(pixels)):
        unit = (_ONE / (_ONE + exp(-means[i])) - _EPSILON) * _PER_RANGE
        errors[i] += abs(min(max(unit, _ZERO), _ONE) * _TWO - _ONE - pixels[i])


@jit()
def add_errors(images, statistics, height, width, errors, thread, num_threads, _counter):
    """Mean absolute errors of patches.

    Args:
        images: Flat: B 3 H W.
        statistics: Flat: B 6 H W.
        height: H.
        width: W.
        errors: Flat, written to: B h w, square.
        thread: Of this call.
        num_threads: How many share the pictures.
    """
    plane = height * width
    count = len(images) // (3 * plane)
    side = int(np.sqrt(len(errors) // count))
    rows, columns = height // side, width // side
    of_row = np.empty(width, np.float32)
    scale = _ONE / _f(3 * rows * columns)
    for item in range(thread, count * side, num_threads):
        picture, row = item // side, item % side
        of_row[:] = _ZERO
        for channel in range(3):
            for line in range(rows):
                at = channel * plane + (row * rows + line) * width
                pixels = piece(images, picture * 3 * plane + at, width)
                _add_row(pixels, piece(statistics, picture * 6 * plane + at, width), of_row)
        for column in range(side):
            total = _ZERO
            for i in range(column * columns, (column + 1) * columns):
                total += of_row[i]
            errors[item * side + column] = total * scale
