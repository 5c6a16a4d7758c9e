"""The loops of `relaxation.py`, compiled for a CPU.

Each is one pass over rows of logits, a row staying in the processor's first cache, where torch
makes some thirty passes over all of them. Threads share the rows.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np

from armchair.core.jit import jit, piece
from armchair.nn.compiled_functions import exp, largest, log, softmax, stored_in, widened

_f = np.float32
_RUN = 1024  # numbers under one pair of keys
_FAST = {"contract", "reassoc"}
_STEP, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


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
def _fill(numbers, start, seed, scale):
    """Draw the noise whose places begin at `start`."""
    done = 0
    while done < len(numbers):
        run, offset = (start + done) // _RUN, (start + done) % _RUN
        keys = _keys(seed, run)
        first, second = np.uint32(np.uint32(keys) + np.uint32(offset)), np.uint32(keys >> _HALF)
        part = piece(numbers, done, min(_RUN - offset, len(numbers) - done))
        for i in range(len(part)):
            place = np.uint32(np.uint32(i) + first)
            part[i] = scale * _gumbel(_mixed(np.uint32(_mixed(place) ^ second)))
        done += len(part)


@jit()
def fill_gumbel(noise, seed, scale, thread, num_threads, _counter):
    """Draw Gumbel(0, 1) noise times a scale; a number hangs on the seed and its place alone."""
    for start in range(thread * _RUN, len(noise), num_threads * _RUN):
        _fill(piece(noise, start, min(_RUN, len(noise) - start)), start, seed, scale)


@jit(fastmath=_FAST)
def relax(
    logits, seed, noise_scale, temperature, size, relaxed, statistics, likeliest, thread,
    num_threads, _counter,
):  # fmt: skip
    """One row after the other: the softmax of noisy logits, and what the posterior's KL needs.

    Args:
        logits: Rows of numbers, flat.
        seed: Of the noise that is added to them, which is that of `fill_gumbel`.
        noise_scale: Factor on it; 0 for none.
        temperature: What noisy logits are divided by.
        size: Numbers of a row, K.
        relaxed: Written to: as many as logits; float32, or bfloat16 as uint16.
        statistics: Written to: for each row ln sum exp of the logits, and sum q ln q.
        likeliest: Written to: for each row the first of its largest logits.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    noisy = np.empty(size, np.float32)
    for row in range(thread, len(logits) // size, num_threads):
        of_row, out = piece(logits, row * size, size), piece(relaxed, row * size, size)
        highest, first = largest(of_row), 0
        while first < size - 1 and of_row[first] < highest:
            first += 1
        likeliest[row] = first
        total, weighted = _f(0), _f(0)
        for i in range(size):
            below = of_row[i] - highest
            weight = exp(below)
            total += weight
            weighted += weight * below
        log_total = log(total)
        statistics[2 * row] = highest + log_total
        statistics[2 * row + 1] = weighted / total - log_total
        if noise_scale > 0:
            _fill(noisy, row * size, seed, noise_scale)
            for i in range(size):
                noisy[i] += of_row[i]
        else:
            noisy[:] = of_row
        softmax(noisy, _f(1) / temperature)
        for i in range(size):
            out[i] = stored_in(out, noisy[i])


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
                mean += widened(y[i]) * widened(d_y[i])
            for i in range(size):
                out[i] = widened(y[i]) * (widened(d_y[i]) - mean) * scale
        else:
            out[:] = _f(0)
        if len(d_entropies):
            log_total, entropy = statistics[2 * row], statistics[2 * row + 1]
            weight = d_entropies[row]
            for i in range(size):
                log_q = of_row[i] - log_total
                out[i] += exp(log_q) * (log_q - entropy) * weight
