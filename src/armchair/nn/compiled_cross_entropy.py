"""The loop of `linear_cross_entropy.py`, for a CPU: loss and gradient of rows."""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np

from armchair.core.jit import jit, piece
from armchair.nn.compiled_functions import exp_sum, log, stored_in

RUN = 32  # rows whose gradients of the bias are summed together, whatever the threads

_f = np.float32


@jit()
def cross_entropy(
    logits, bias, targets, weights, nats, gradient, totals, thread, num_threads, _counter
):
    """Nats of rows, and weights times their gradient with regard to the logits.

    Args:
        logits: Flat: R V, without the bias; used up.
        bias: V.
        targets: R, int64.
        weights: R.
        nats: R, written to.
        gradient: Flat, written to: R V; float32, perhaps the logits themselves, or bfloat16 as
            uint16.
        totals: Flat, written to: runs V, the sums of gradients over runs of rows.
        thread: Of this call.
        num_threads: How many share the rows.
    """
    size, rows = len(bias), len(targets)
    runs = (rows + RUN - 1) // RUN
    for run in range(runs * thread // num_threads, runs * (thread + 1) // num_threads):
        d_bias = piece(totals, run * size, size)
        d_bias[:] = _f(0)
        for row in range(run * RUN, min(rows, (run + 1) * RUN)):
            x, target, weight = piece(logits, row * size, size), targets[row], weights[row]
            for i in range(size):
                x[i] += bias[i]
            of_target = x[target]
            highest, total = exp_sum(x, _f(1))
            nats[row] = log(total) + (highest - of_target)
            scale, to = weight / total, piece(gradient, row * size, size)
            true = x[target] * scale - weight
            for i in range(size):
                given = x[i] * scale
                d_bias[i] += given
                to[i] = stored_in(to, given)
            d_bias[target] -= weight
            to[target] = stored_in(to, true)
