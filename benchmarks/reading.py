"""What the scene reader finds in pictures that a DALL·E 2 drew, small ones too; for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

import armchair
from armchair.data.scenes import Prompt
from armchair.evaluation.scene_reader import SceneReader, judge

READ_AT = 128  # pixels that a smaller picture is resized to; the reader reads it as well then


def verdicts(
    reader: SceneReader, asked: Sequence[Prompt], pictures: Sequence[Image.Image]
) -> list[bool]:
    """Whether each picture is all that its prompt asks for."""
    found = []
    for prompt, picture in zip(asked, pictures, strict=True):
        shown = picture
        if picture.width < READ_AT:
            shown = picture.resize((READ_AT, READ_AT), Image.Resampling.BICUBIC)
        found.append(bool(judge(prompt, reader.read(np.asarray(shown)))["all"]))
    return found


def without_upsamplers(model: armchair.DALLE2) -> armchair.DALLE2:
    """The same model, whose pictures are the decoder's."""
    clip = None if model.clip is None else model.clip.model
    parts = (model.tokenizer, clip, model.prior, model.decoder)
    return armchair.DALLE2(*parts, sampling=model.sampling)
