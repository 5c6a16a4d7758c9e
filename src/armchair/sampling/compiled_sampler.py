"""Token after token on a CPU, with no line of Python in between.

    sampler = CompiledSampler(decoder, choice, candidates)
    sampler.draw(codes, uniforms, 1, 256)           # fills codes[:, 1:256]

It does what a `CompiledDecoder` and a `CompiledChoice` do in turn. Waking threads for each token
would cost a tenth of a millisecond twice, and a step of one picture takes half of one.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from armchair.core.jit import jit, piece
from armchair.core.threads import as_array, meet
from armchair.models.sequence.compiled_decoder import CompiledDecoder
from armchair.models.sequence.compiled_step import advance
from armchair.sampling.compiled_choice import CompiledChoice, choose_row, scratch


class CompiledSampler:
    """Draws the rest of pictures whose first token is there.

    Args:
        decoder: With a row for each candidate's caption, and then its null prompt if it is guided.
        choice: How to pick tokens.
        candidates: For each row its candidate.
    """

    def __init__(
        self, decoder: CompiledDecoder, choice: CompiledChoice, candidates: Int64[Tensor, " R"]
    ) -> None:
        self._decoder = decoder
        self._settings = choice.settings
        self._candidates = candidates.numpy()

    def draw(
        self,
        codes: Int64[Tensor, "B S"],
        uniforms: Float64[Tensor, "B S"],
        start: int,
        stop: int,
    ) -> None:
        """Draw the tokens at places from `start`, at least 1, to before `stop`, one by one.

        Args:
            codes: Contiguous; written to.
            uniforms: Of each token a number in [0, 1); contiguous.
            start: All tokens before are there, and the decoder has taken in all but the last.
            stop: At most S.
        """
        self._decoder.run(
            _draw_tokens,
            as_array(codes),
            as_array(uniforms),
            self._candidates,
            start,
            stop,
            codes.shape[1],
            self._settings,
        )


@jit()
def _draw_tokens(
    codes, uniforms, candidates, start, stop, length, settings, memory, past, weights, layout,
    tables, eps, thread, num_threads, counter,
):  # fmt: skip
    last, met = np.empty(len(candidates), np.int64), 0
    pictures = len(codes) // length
    distance, size = tables.distance, tables.vocab_size
    logits = piece(memory, layout.logits, layout.num_rows * distance)
    spare = scratch(size)
    for place in range(start, stop):
        if thread == 0:
            for row in range(len(candidates)):
                last[row] = codes[candidates[row] * length + place - 1]
        met = advance(
            last, place - 1, memory, past, weights, layout, tables, eps, thread, num_threads,
            counter, met,
        )  # fmt: skip
        for picture in range(thread, pictures, num_threads):
            caption, null = picture * distance, (pictures + picture) * distance
            at = picture * length + place
            codes[at] = choose_row(logits, caption, null, uniforms[at], size, settings, spare)
        met += 1
        meet(counter, num_threads * met)
