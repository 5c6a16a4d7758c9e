"""How a discrete VAE is trained against the clock. Imported by every environment.

    python ours.py learn pictures.npz 300

It prints a line of JSON at the start and after each eighth of the time: the seconds spent on
updates, the pictures seen, and of pictures that are never trained on the PSNR in decibels and how
many codes they take.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Protocol

import numpy as np
import torch
from shapes import AUTOENCODER_BATCH
from torch import Tensor

SCORES, SCORED_AT_ONCE = 8, 64


class Learner(Protocol):
    """A model that learns. Pictures are B 3 H W in [0, 1]."""

    def update(self, images: Tensor, progress: float) -> None:
        """One step; progress runs from 0 to 1."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Codes of pictures."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of codes, and a little outside of [0, 1] perhaps."""
        ...


def learn_as_told(learner: Learner) -> None:
    """Train for as many seconds as the command line says, scoring not counted.

    The command line names an .npz of "train" and "validation", N H W 3 of uint8, beside which goes
    what the learner made of the first eight of the second.
    """
    pictures, seconds = sys.argv[2], float(sys.argv[3])
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    arrays = np.load(pictures)
    train, validation = (arrays[name] for name in ("train", "validation"))
    generator = np.random.default_rng(0)
    spent, seen = 0.0, 0
    for score in range(SCORES + 1):
        while spent < seconds * score / SCORES:
            images = _to_unit(train[generator.integers(len(train), size=AUTOENCODER_BATCH)])
            started = time.perf_counter()
            learner.update(images, spent / seconds)
            spent += time.perf_counter() - started
            seen += AUTOENCODER_BATCH
        scores, again = _score(learner, validation)
        print(json.dumps({"seconds": spent, "pictures": seen, **scores}), file=answers, flush=True)
    np.save(pictures.removesuffix(".npz") + "-again.npy", again)


@torch.no_grad()
def _score(learner: Learner, validation: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    decibels, codes, again = [], [], []
    for start in range(0, len(validation), SCORED_AT_ONCE):
        images = _to_unit(validation[start : start + SCORED_AT_ONCE])
        codes.append(learner.encode(images))
        decoded = learner.decode(codes[-1]).float().clamp(0, 1)
        again.append(decoded)
        errors = (decoded - images).square().flatten(1).mean(1)
        decibels += [-10 * math.log10(max(float(error), 1e-10)) for error in errors]
    used = len(torch.cat([of_batch.flatten() for of_batch in codes]).unique())
    pixels = (torch.cat(again)[:8].movedim(1, -1) * 255).round().byte().numpy()
    return {"psnr_db": sum(decibels) / len(decibels), "codes_used": used}, pixels


def _to_unit(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).movedim(-1, 1).float() / 255
