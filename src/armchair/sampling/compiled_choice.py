"""From logits to tokens, compiled for a CPU: a row's filters and draw in one go.

    choose = CompiledChoice(batch_size=9, guidance_scale=3.0, temperature=1.0, top_k=64, top_p=None)
    codes = choose(logits, uniforms)                # 18 V, 9 -> 9

It picks what `guided_logits`, `filter_logits` and `draw` pick, which are the reference, where torch
takes some twenty operations. Top-k finds the last token that is kept by counting its bits, eight at
a time, among those that have the bits before.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.core.jit import jit
from armchair.core.threads import Threads
from armchair.nn.compiled_functions import bits_of, exp_64, largest

_SIGN, _ALL = np.uint32(1 << 31), np.uint32(0xFFFFFFFF)


class _Settings(NamedTuple):
    guidance_scale: np.float32
    temperature: np.float32
    top_k: int  # 0 for all
    top_p: float


class CompiledChoice:
    """Filters and draws one token of each picture.

    Args:
        batch_size: Pictures B.
        guidance_scale: See `guided_logits`.
        temperature: See `filters`; so are the next two. They have been checked.
        top_k: Tokens to keep; None for all.
        top_p: Probability to keep; None for all.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        guidance_scale: float,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> None:
        # To wake another thread takes longer than the choice of a few.
        self._threads = Threads(max(1, min(batch_size // 8, torch.get_num_threads())))
        self.settings = _Settings(
            np.float32(guidance_scale),
            np.float32(temperature),
            0 if top_k is None else top_k,
            1.0 if top_p is None else float(top_p),
        )

    def __call__(
        self, logits: Float[Tensor, "R V"], uniforms: Float[Tensor, " B"]
    ) -> Int[Tensor, " B"]:
        """Pick a token of each picture; the null prompts' rows, if any, follow the captions'."""
        codes = torch.empty(len(uniforms), dtype=torch.int64)
        distance, vocab_size = logits.stride(0), logits.shape[1]
        flat = logits.as_strided(((len(logits) - 1) * distance + vocab_size,), (1,))
        arrays = flat.numpy(), uniforms.contiguous().numpy(), codes.numpy()
        self._threads.run(_choose, *arrays, distance, vocab_size, self.settings)
        return codes


@jit()
def _ordered(number):
    """Bits that are ordered as the numbers are."""
    bits = np.uint32(bits_of(number))
    return np.uint32(bits ^ (_ALL if bits & _SIGN else _SIGN))


@jit()
def _keep_top_k(x, top_k, counts, keys, left):
    """Write -inf where a number is not among the k largest; of equals the first are kept."""
    for i in range(len(x)):
        keys[i] = left[i] = _ordered(x[i])
    size, room, last = len(x), top_k, np.uint32(0)
    for shift in (24, 16, 8, 0):
        counts[:] = 0
        for i in range(size):
            counts[(left[i] >> np.uint32(shift)) & np.uint32(255)] += 1
        digit = 255
        while room > counts[digit]:
            room -= counts[digit]
            digit -= 1
        last = np.uint32(last | (np.uint32(digit) << np.uint32(shift)))
        kept = 0
        for i in range(size):
            left[kept] = left[i]
            kept += ((left[i] >> np.uint32(shift)) & np.uint32(255)) == digit
        size = kept
    for i in range(len(x)):
        x[i] = x[i] if keys[i] >= last else -np.inf
    if room < size:
        for i in range(len(x)):
            if keys[i] == last:
                x[i] = x[i] if room > 0 else -np.inf
                room -= 1


@jit()
def _exponentials(x, weights):
    """Of numbers less their largest, in float64; their sum."""
    highest, total = np.float64(largest(x)), 0.0
    for i in range(len(x)):
        weights[i] = 0.0 if x[i] == -np.inf else exp_64(np.float64(x[i]) - highest)
    for i in range(len(x)):
        total += weights[i]
    return total


@jit()
def _keep_top_p(x, top_p, weights):
    """Write -inf behind the likeliest whose probability reaches p."""
    total, before = _exponentials(x, weights), 0.0
    for place, i in enumerate(np.argsort(-x, kind="mergesort")):
        if place > 0 and before >= top_p:
            x[i] = -np.inf
        before += weights[i] / total


@jit()
def scratch(size):
    """Room for the choice of one of so many tokens."""
    counts, keys = np.empty(256, np.int64), np.empty((2, size), np.uint32)
    return np.empty(size, np.float32), np.empty(size, np.float64), counts, keys


@jit()
def choose_row(logits, caption, null, uniform, size, settings, spare):
    """A row's filters and draw.

    Args:
        logits: Flat.
        caption: Where the caption's begin.
        null: Where the null prompt's begin, if there is guidance.
        uniform: In [0, 1).
        size: Tokens V.
        settings: Of the choice.
        spare: See `scratch`.

    Returns:
        The token.
    """
    x, weights, counts, keys = spare
    guidance_scale, temperature, top_k, top_p = settings
    for i in range(size):
        number = logits[caption + i]
        if guidance_scale != 1:
            number = logits[null + i] + guidance_scale * (number - logits[null + i])
        x[i] = number / temperature + np.float32(0)  # -0 becomes 0, which it equals
    if 0 < top_k < size:
        _keep_top_k(x, top_k, counts, keys[0], keys[1])
    if top_p < 1:
        _keep_top_p(x, top_p, weights)
    total = _exponentials(x, weights)
    cumulative, threshold, code = 0.0, uniform * total, 0
    for i in range(size):
        cumulative += weights[i]
        if cumulative > threshold or cumulative >= total:
            code = i
            break
    return code


@jit()
def _choose(
    logits, uniforms, codes, distance, size, settings, thread, num_threads, _counter
):  # fmt: skip
    spare = scratch(size)
    for row in range(thread, len(codes), num_threads):
        caption, null = row * distance, (len(codes) + row) * distance
        codes[row] = choose_row(logits, caption, null, uniforms[row], size, settings, spare)
