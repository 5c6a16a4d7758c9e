"""From logits to tokens, compiled for a CPU: a row's filters and draw in one go.

    choose = CompiledChoice(batch_size=9, guidance_scale=3.0, temperature=1.0, top_k=64, top_p=None)
    codes = choose(logits, uniforms)                # 18 V, 9 -> 9

It picks what `guided_logits`, `filter_logits` and `draw` pick, which are the reference, where torch
takes some twenty operations. Top-k finds the last token that is kept by counting its bits, eight at
a time.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.core.jit import Threads, jit
from armchair.nn.compiled_functions import bits_of

_SIGN, _ALL = np.uint32(1 << 31), np.uint32(0xFFFFFFFF)


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
        self._threads = Threads(min(batch_size, torch.get_num_threads()))
        self._settings = (
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
        self._threads.run(_choose, *arrays, distance, vocab_size, *self._settings)
        return codes


@jit()
def _ordered(number):
    """Bits that are ordered as the numbers are."""
    bits = np.uint32(bits_of(number))
    return np.uint32(bits ^ (_ALL if bits & _SIGN else _SIGN))


@jit()
def _keep_top_k(x, top_k, counts):
    """Write -inf where a number is not among the k largest; of equals the first are kept."""
    prefix, mask, room = np.uint32(0), np.uint32(0), top_k
    for shift in (24, 16, 8, 0):
        counts[:] = 0
        for number in x:
            bits = _ordered(number)
            if (bits & mask) == prefix:
                counts[(bits >> np.uint32(shift)) & np.uint32(255)] += 1
        digit = 255
        while room > counts[digit]:
            room -= counts[digit]
            digit -= 1
        prefix = np.uint32(prefix | (np.uint32(digit) << np.uint32(shift)))
        mask = np.uint32(mask | (np.uint32(255) << np.uint32(shift)))
    for i in range(len(x)):
        bits = _ordered(x[i])
        if bits == prefix and room > 0:
            room -= 1
        elif bits <= prefix:
            x[i] = -np.inf


@jit()
def _exponentials(x, weights):
    """Of numbers less their largest, in float64; their sum."""
    highest, total = np.float64(x.max()), 0.0
    for i in range(len(x)):
        weights[i] = 0.0 if x[i] == -np.inf else np.exp(np.float64(x[i]) - highest)
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
def _choose(
    logits, uniforms, codes, distance, size, guidance_scale, temperature, top_k, top_p, thread,
    num_threads, _counter,
):  # fmt: skip
    x, weights = np.empty(size, np.float32), np.empty(size, np.float64)
    counts = np.empty(256, np.int64)
    for row in range(thread, len(codes), num_threads):
        caption, null = row * distance, (len(codes) + row) * distance
        for i in range(size):
            number = logits[caption + i]
            if guidance_scale != 1:
                number = logits[null + i] + guidance_scale * (number - logits[null + i])
            x[i] = number / temperature + np.float32(0)  # -0 becomes 0, which it equals
        if 0 < top_k < size:
            _keep_top_k(x, top_k, counts)
        if top_p < 1:
            _keep_top_p(x, top_p, weights)
        total = _exponentials(x, weights)
        cumulative, threshold, code = 0.0, uniforms[row] * total, 0
        for i in range(size):
            cumulative += weights[i]
            if cumulative > threshold or cumulative >= total:
                code = i
                break
        codes[row] = code
