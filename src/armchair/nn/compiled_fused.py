"""The loops of `fused.py`, compiled for a CPU: each one pass over rows of the stream.

Threads share runs of rows. What is summed over all rows is summed for each run apart, so that its
bits do not hang on how many threads there are.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np

from armchair.core.jit import jit, piece
from armchair.core.vectors import LANES, load, load_first, store, store_first
from armchair.nn.compiled_functions import (
    gelu,
    gelu_slope,
    moments,
    stored_in,
    widened,
)

RUN = 32  # rows

_f = np.float32
_ZERO, _ONE = _f(0), _f(1)


@jit(fastmath={"contract"})
def _add(x, branch, bias, sums):
    """A row of the stream, and that of a branch with its bias."""
    for i in range(len(x)):
        sums[i] = x[i] + (widened(branch[i]) + bias[i])


@jit(fastmath={"contract"})
def add_norm(
    x, branch, bias, gain, shift, eps, sums, normed, statistics, thread, num_threads, _counter
):
    """Add a branch and its bias to rows, and normalise them.

    Args:
        x: Flat: R D, float32.
        branch: Flat: R D, or nothing; float32, or bfloat16 as uint16.
        bias: D, of the branch.
        gain: D, of the norm.
        shift: D, of the norm.
        eps: Of the norm.
        sums: Flat, written to: R D, or nothing where there is no branch.
        normed: Flat, written to: R D; float32, or bfloat16 as uint16.
        statistics: Flat, written to: R 2, the mean and one over the deviation.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    dim = len(gain)
    rows = len(x) // dim
    for row in range(rows * thread // num_threads, rows * (thread + 1) // num_threads):
        of_row, to = piece(x, row * dim, dim), piece(normed, row * dim, dim)
        if len(branch):
            before, of_row = of_row, piece(sums, row * dim, dim)
            _add(before, piece(branch, row * dim, dim), bias, of_row)
        mean, factor = moments(of_row, eps)
        statistics[2 * row], statistics[2 * row + 1] = mean, factor
        for i in range(dim):
            to[i] = stored_in(to, (of_row[i] - mean) * factor * gain[i] + shift[i])


@jit(fastmath={"contract", "reassoc"})
def _projections(x, mean, factor, gain, gradient):
    """What of a row's gradient a norm takes away: its mean, and its part along the row."""
    along, total, scale = _ZERO, _ZERO, _ONE / _f(len(x))
    for i in range(len(x)):
        weighted = widened(gradient[i]) * gain[i]
        total += weighted
        along += weighted * (x[i] - mean) * factor
    return total * scale, along * scale


@jit(fastmath={"contract"})
def add_norm_backward(
    sums, statistics, gain, d_sums, d_normed, d_x, d_branch, totals, thread, num_threads, _counter
):
    """The gradients of `add_norm`.

    Args:
        sums: Flat: R D, what was normalised.
        statistics: What `add_norm` wrote.
        gain: D.
        d_sums: Flat: R D, or nothing where the sums have no other use.
        d_normed: Flat: R D; float32, or bfloat16 as uint16.
        d_x: Flat, written to: R D.
        d_branch: Flat, written to: R D, or nothing where there was no branch.
        totals: Flat, written to: runs 3 D: the gradients of bias, gain and shift.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    dim = len(gain)
    rows = len(sums) // dim
    runs = (rows + RUN - 1) // RUN
    for run in range(runs * thread // num_threads, runs * (thread + 1) // num_threads):
        of_run = 3 * run * dim
        piece(totals, of_run, 3 * dim)[:] = _ZERO
        d_bias, d_gain = piece(totals, of_run, dim), piece(totals, of_run + dim, dim)
        d_shift = piece(totals, of_run + 2 * dim, dim)
        for row in range(run * RUN, min(rows, (run + 1) * RUN)):
            x, gradient = piece(sums, row * dim, dim), piece(d_normed, row * dim, dim)
            to = piece(d_x, row * dim, dim)
            mean, factor = statistics[2 * row], statistics[2 * row + 1]
            level, slope = _projections(x, mean, factor, gain, gradient)
            for i in range(dim):
                given, unit = widened(gradient[i]), (x[i] - mean) * factor
                d_gain[i] += given * unit
                d_shift[i] += given
                to[i] = factor * (given * gain[i] - level - unit * slope)
            if len(d_sums):
                other = piece(d_sums, row * dim, dim)
                for i in range(dim):
                    to[i] += other[i]
            if len(d_branch):
                of_branch = piece(d_branch, row * dim, dim)
                for i in range(dim):
                    of_branch[i] = stored_in(of_branch, to[i])
                    d_bias[i] += to[i]


@jit(fastmath={"contract"})
def add_bias(x, branch, bias, sums, thread, num_threads, _counter):
    """Add a branch and its bias to rows; see `add_norm`."""
    dim = len(bias)
    rows = len(x) // dim
    for row in range(rows * thread // num_threads, rows * (thread + 1) // num_threads):
        of_row, added = piece(x, row * dim, dim), piece(branch, row * dim, dim)
        _add(of_row, added, bias, piece(sums, row * dim, dim))


@jit(fastmath={"contract"})
def add_bias_backward(d_sums, dim, d_branch, totals, thread, num_threads, _counter):
    """The gradients of the branch, R D, and of its bias, runs D."""
    rows = len(d_sums) // dim
    runs = (rows + RUN - 1) // RUN
    for run in range(runs * thread // num_threads, runs * (thread + 1) // num_threads):
        d_bias = piece(totals, run * dim, dim)
        d_bias[:] = _ZERO
        for row in range(run * RUN, min(rows, (run + 1) * RUN)):
            given, to = piece(d_sums, row * dim, dim), piece(d_branch, row * dim, dim)
            for i in range(dim):
                to[i] = stored_in(to, given[i])
                d_bias[i] += given[i]


@jit()
def bias_gelu(x, bias, activated, thread, num_threads, _counter):
    """GELU of rows, R D, and a bias; float32, or bfloat16 as uint16."""
    dim = len(bias)
    rows, whole = len(x) // dim, dim - dim % LANES
    for row in range(rows * thread // num_threads, rows * (thread + 1) // num_threads):
        of_row, to = piece(x, row * dim, dim), piece(activated, row * dim, dim)
        for i in range(0, whole, LANES):
            store(to, i, gelu(load(of_row, i) + load(bias, i)))
        if whole < dim:
            left = dim - whole
            numbers = load_first(of_row, whole, left) + load_first(bias, whole, left)
            store_first(to, whole, left, gelu(numbers))


@jit()
def bias_gelu_backward(x, bias, d_activated, d_x, totals, thread, num_threads, _counter):
    """Its gradients: R D, and of the bias, runs D."""
    dim = len(bias)
    rows, whole = len(x) // dim, dim - dim % LANES
    runs = (rows + RUN - 1) // RUN
    for run in range(runs * thread // num_threads, runs * (thread + 1) // num_threads):
        d_bias = piece(totals, run * dim, dim)
        d_bias[:] = _ZERO
        for row in range(run * RUN, min(rows, (run + 1) * RUN)):
            of_row, given = piece(x, row * dim, dim), piece(d_activated, row * dim, dim)
            to = piece(d_x, row * dim, dim)
            for i in range(0, whole, LANES):
                slopes = gelu_slope(load(of_row, i) + load(bias, i)) * load(given, i)
                store(to, i, slopes)
                store(d_bias, i, load(d_bias, i) + slopes)
            if whole < dim:
                left = dim - whole
                slopes = gelu_slope(load_first(of_row, whole, left) + load_first(bias, whole, left))
                slopes = slopes * load_first(given, whole, left)
                store_first(to, whole, left, slopes)
                store_first(d_bias, whole, left, load_first(d_bias, whole, left) + slopes)
