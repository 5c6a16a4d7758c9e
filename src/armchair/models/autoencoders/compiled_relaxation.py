"""The loops of `relaxation.py`, compiled for a CPU.

Each is one pass over rows of logits, a row staying in the processor's first cache, where torch
makes some thirty passes over all of them. Threads share the rows.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np

from armchair.core.jit import jit, piece
from armchair.nn.compiled_functions import exp, log, softmax

_f = np.float32
_RUN = 1024  # numbers under one pair of keys
_FAST = {"contract", "reassoc", "nnan", "nsz"}
_STEP = np.uint64(0x9E3779B97F4A7C15)


@jit()
def _keys(seed, run):
    """Sixty-four bits for a run of numbers: splitmix64, Steele, Lea and Flood (2014)."""
    bits = seed + np.uint64(run + 1) * _STEP
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@jit()
def _mixed(bits):
    """A permutation of 32 bits in which each hangs on all others."""
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ (bits >> np.uint32(16)))


@jit(fastmath={"contract"})
def _gumbel(bits):
    """Of 23 of 32 uniform bits, -ln(-ln u)."""
    u = (_f(np.int32(bits >> np.uint32(9))) + _f(0.5)) * _f(2**-23)  # never 0 or 1
    return -log(-log(u))


@jit(fastmath={"contract"})
def fill_gumbel(noise, seed, scale, thread, num_threads, _counter):
    """Draw Gumbel(0, 1) noise times a scale; a number hangs on the seed and its place alone."""
    runs = (len(noise) + _RUN - 1) // _RUN
    for run in range(thread, runs, num_threads):
        keys = _keys(seed, run)
        first, second = np.uint32(keys), np.uint32(keys >> np.uint64(32))
        start = run * _RUN
        numbers = piece(noise, start, min(_RUN, len(noise) - start))
        for i in range(len(numbers)):
            place = np.uint32(np.uint32(i) + first)
            numbers[i] = scale * _gumbel(_mixed(np.uint32(_mixed(place) ^ second)))


@jit(fastmath=_FAST)
def relax(logits, noise, temperature, size, relaxed, statistics, thread, num_threads, _counter):
    """One row after the other: the softmax of noisy logits, and what the posterior's KL needs.

    Args:
        logits: Rows of numbers, flat.
        noise: What is added to them, or nothing.
        temperature: What noisy logits are divided by.
        size: Numbers of a row, K.
        relaxed: Written to: as many as logits.
        statistics: Written to: for each row ln sum exp of the logits, and sum q ln q.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    for row in range(thread, len(logits) // size, num_threads):
        of_row, out = piece(logits, row * size, size), piece(relaxed, row * size, size)
        highest = of_row[0]
        for number in of_row:
            highest = max(highest, number)
        total, weighted = _f(0), _f(0)
        for number in of_row:
            weight = exp(number - highest)
            total += weight
            weighted += weight * (number - highest)
        log_total = log(total)
        statistics[2 * row] = highest + log_total
        statistics[2 * row + 1] = weighted / total - log_total
        if len(noise):
            of_noise = piece(noise, row * size, size)
            for i in range(size):
                out[i] = of_row[i] + of_noise[i]
        else:
            for i in range(size):
                out[i] = of_row[i]
        softmax(out, _f(1) / temperature)


@jit(fastmath=_FAST)
def relax_backward(
    logits, temperature, size, relaxed, statistics, d_relaxed, d_entropies, d_logits, thread,
    num_threads, _counter,
):  # fmt: skip
    """The gradient with regard to the logits, row by row.

    Args:
        logits: As for `relax`, as all that is not said here.
        temperature: See there.
        size: See there.
        relaxed: What it wrote.
        statistics: What it wrote.
        d_relaxed: The gradient with regard to `relaxed`; nothing where it has none.
        d_entropies: With regard to each row's sum q ln q; nothing where it has none.
        d_logits: Written to.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    scale = _f(1) / temperature
    for row in range(thread, len(logits) // size, num_threads):
        start = row * size
        of_row, out = piece(logits, start, size), piece(d_logits, start, size)
        if len(d_relaxed):
            y, d_y = piece(relaxed, start, size), piece(d_relaxed, start, size)
            mean = _f(0)
            for i in range(size):
                mean += y[i] * d_y[i]
            for i in range(size):
                out[i] = y[i] * (d_y[i] - mean) * scale
        else:
            out[:] = _f(0)
        if len(d_entropies):
            log_total, entropy = statistics[2 * row], statistics[2 * row + 1]
            weight = d_entropies[row]
            for i in range(size):
                log_q = of_row[i] - log_total
                out[i] += exp(log_q) * (log_q - entropy) * weight
