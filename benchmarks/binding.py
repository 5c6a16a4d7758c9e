"""What binds two objects to their places: captions of scenes with made-up codes, learnt in minutes.

    python benchmarks/binding.py

A scene's codes are a grid of 10x10: each background has a code, and a figure is 3x3 codes, each
decided by the object, by the material, or by both at once. So there is nothing to learn but which
is where, in what, and the question is when changing that in a caption begins to cost something.
Captions name two objects in one of four orders:

    either                 the left or the upper one first in one half of the captions
    mostly in order        the left or the upper one first in 85%
    in order               always
    in order, then either  always for 24,000 pictures, then either

Prints one table of all, and writes benchmarks/results/binding.json. One order takes about 8 minutes
on one core; give the names of some to run only those.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from armchair.core.provenance import provenance
from armchair.core.random import numpy_generator
from armchair.core.schedules import Schedule
from armchair.data.scenes import BACKGROUNDS, MATERIALS, OBJECTS, Scene, describe, scene
from armchair.models.sequence.text_to_image import (
    TextToImageConfig,
    TextToImageTransformer,
    weighted_loss,
)
from armchair.text.tokenizer import Tokenizer, TokenizerConfig
from armchair.training.optim import OptimizerConfig, build_optimizers

RESULTS = Path(__file__).parent / "results"
SCENES, EXAMPLES, EVERY, BATCH_SIZE, LEARNING_RATE = 48_000, 48_000, 8000, 16, 4e-3
MEASURED = 400  # scenes of two objects, of those never trained on
GRID, SIDE, CODES = 10, 3, 256

ORDERS: dict[str, Callable[[int], float]] = {
    "either": lambda seen: 0.5,
    "mostly in order": lambda seen: 0.85,
    "in order": lambda seen: 1.0,
    "in order, then either": lambda seen: 1.0 if seen < 24_000 else 0.5,
}
"""The share of captions in reading order after so many pictures."""


def figure_codes() -> np.ndarray:
    """A figure's codes (object, material, side, side)."""
    generator = numpy_generator("binding/codes", 0)
    of_both = generator.integers(
        len(BACKGROUNDS), CODES, (len(OBJECTS), len(MATERIALS), SIDE, SIDE)
    )
    decided_by = generator.random((len(OBJECTS), SIDE, SIDE))[:, None]
    codes = np.where(decided_by < 0.3, of_both[:, :1], of_both)
    return np.where((decided_by >= 0.3) & (decided_by < 0.6), of_both[:1], codes)


def scene_codes(shown: Scene, figures: np.ndarray) -> np.ndarray:
    """A scene on the grid, each figure where it is in the scene, to the nearest code."""
    grid = np.full((GRID, GRID), BACKGROUNDS.index(shown.background))
    for (object_, material), place in zip(shown.pairs, shown.places, strict=True):
        top, left = (round(at * GRID - SIDE / 2) for at in (place.y, place.x))
        codes = figures[OBJECTS.index(object_), MATERIALS.index(material)]
        grid[top : top + SIDE, left : left + SIDE] = codes
    return grid.ravel()


def caption(shown: Scene, index: int, in_order: float) -> str:
    """A caption that names objects in reading order with this chance."""
    generator = numpy_generator("binding/caption", 0, index)
    return describe(shown, generator, in_reading_order=generator.random() < in_order).text


def objects_changed(shown: Scene) -> Scene:
    """The two objects change places, their materials stay."""
    (first, material), (second, other) = shown.pairs
    return replace(shown, pairs=((second, material), (first, other)))


def materials_changed(shown: Scene) -> Scene:
    """The two objects change materials."""
    (first, material), (second, other) = shown.pairs
    return replace(shown, pairs=((first, other), (second, material)))


class Binding:
    """The scenes in tokens and codes, and what a caption's change costs a model of them."""

    def __init__(self) -> None:
        figures = figure_codes()
        self.scenes = [scene(5, index) for index in range(SCENES)]
        self.codes = torch.from_numpy(np.stack([scene_codes(one, figures) for one in self.scenes]))
        texts = [caption(one, index, 0.5) for index, one in enumerate(self.scenes[:4000])]
        self.tokenizer = Tokenizer.train(texts, TokenizerConfig(vocab_size=512, context_length=40))
        two = [index for index in range(SCENES) if len(self.scenes[index].pairs) == 2]
        self.measured, self.trained = two[:MEASURED], range(two[MEASURED], SCENES)

    def text(self, in_order: float, of: Callable[[Scene], Scene] | None = None) -> Tensor:
        """Captions of all scenes, or of those to measure, changed."""
        chosen = range(SCENES) if of is None else self.measured
        shown = [self.scenes[index] if of is None else of(self.scenes[index]) for index in chosen]
        captions = [caption(one, k, in_order) for k, one in zip(chosen, shown, strict=True)]
        return torch.from_numpy(self.tokenizer.encode_batch(captions))

    def run(self, name: str) -> list[dict[str, Any]]:
        """Train a model on one order; what it knows after every 8,000 pictures."""
        torch.manual_seed(0)
        config = TextToImageConfig(
            text_vocab_size=512,
            text_length=40,
            image_vocab_size=CODES,
            grid_size=GRID,
            dim=96,
            num_layers=4,
            num_heads=3,
        )
        model = TextToImageTransformer(config)
        rate = Schedule.of(0.0, (0.03, LEARNING_RATE, "linear"))
        optimizers = build_optimizers(
            model, OptimizerConfig(learning_rate=rate, weight_decay=0.045, hidden_matrices="muon")
        )
        order, generator = ORDERS[name], np.random.default_rng(0)
        texts = {share: self.text(share) for share in {order(0), order(EXAMPLES)}}
        rows: list[dict[str, Any]] = []
        for seen in range(0, EXAMPLES, BATCH_SIZE):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate(seen / EXAMPLES)
            batch = torch.from_numpy(generator.choice(self.trained, BATCH_SIZE))
            weighted_loss(model.loss(texts[order(seen)][batch], self.codes[batch])).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if (seen + BATCH_SIZE) % EVERY == 0:
                rows.append({"order": name, "pictures": seen + BATCH_SIZE})
                rows[-1] |= self.measure(model, order(seen))
                print(rows[-1], file=sys.stderr, flush=True)
        return rows

    @torch.no_grad()
    def measure(self, model: TextToImageTransformer, in_order: float) -> dict[str, float]:
        """Bits of a picture given its caption, and how many more given a changed one."""

        def bits(of: Callable[[Scene], Scene]) -> float:
            loss = model.loss(self.text(in_order, of), self.codes[self.measured])
            return float(loss.image) * GRID**2 / math.log(2)

        told = bits(lambda one: one)
        return {
            "bits": told,
            "objects_changed": bits(objects_changed) - told,
            "materials_changed": bits(materials_changed) - told,
        }


def main() -> None:
    """Run the orders that are named, or all, and add what they say to the committed results."""
    path, toy = RESULTS / "binding.json", Binding()
    measured = {name: toy.run(name) for name in sys.argv[1:] or ORDERS}
    before = json.loads(path.read_text("utf-8"))["orders"] if path.exists() else {}
    done = before | measured  # read now, as another process may have run others meanwhile
    result = {
        "orders": {name: done[name] for name in ORDERS if name in done},
        **provenance(torch.device("cpu")),
    }
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(
        "| order | pictures | bits | objects changed | materials changed |\n|---|---|---|---|---|"
    )
    for rows in result["orders"].values():
        for row in rows:
            costs = (row["bits"], row["objects_changed"], row["materials_changed"])
            numbers = " | ".join(f"{cost:.1f}" for cost in costs)
            print(f"| {row['order']} | {row['pictures']:,} | {numbers} |")


if __name__ == "__main__":
    main()
