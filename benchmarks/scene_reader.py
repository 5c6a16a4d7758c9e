"""What the scene reader reads right, and what it lets pass: the table in its docstring.

    python benchmarks/scene_reader.py

A good picture counts if all of it is read right; a faulty one of a single object counts if it is
taken for the scene that it was. Prints one table and writes benchmarks/results/scene_reader.json.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from faulty_scenes import (
    SIDES,
    blurred,
    erased,
    fresh,
    mixed,
    painted,
    reconstructed,
    saved_as_jpeg,
    singles,
    truth,
)

from armchair.core.provenance import provenance
from armchair.core.random import numpy_generator
from armchair.data.scenes import MATERIALS, OBJECTS, Scene, draw
from armchair.data.scenes.materials import PALETTES
from armchair.evaluation.scene_reader import SceneReader

RESULTS = Path(__file__).parent / "results"
COUNT, SIZES = 300, (64, 128)
DISTINCT = 60  # levels between two colours that a person tells apart at a glance

Picture = Callable[[Scene, int, int], np.ndarray]
"""A picture of a scene at a size; the last argument numbers it."""

GOOD: dict[str, Picture] = {
    "a rendering": lambda one, size, index: draw(one, size),
    "blurred by 1 pixel": lambda one, size, index: blurred(draw(one, size)),
    "tinted, softened, noisy": lambda one, size, index: reconstructed(draw(one, size), index),
    "JPEG of quality 40": lambda one, size, index: saved_as_jpeg(draw(one, size)),
}


def another_material(part: str) -> Picture:
    """The figure with a colour, or the pattern, of a material that has another there."""

    def picture(one: Scene, size: int, index: int) -> np.ndarray:
        ((_, material),) = one.pairs
        own = getattr(PALETTES[material], part)
        others = [getattr(PALETTES[name], part) for name in MATERIALS if name != material]
        if part != "pattern":
            others = [colour for colour in others if math.dist(colour, own) >= DISTINCT]
        return painted(one, size, **{part: others[index % len(others)]})

    return picture


def random_colours(one: Scene, size: int, index: int) -> np.ndarray:
    """The figure in three colours of no material."""
    generator = numpy_generator("benchmark/colours", index)
    parts = ("outer", "inner", "trim")
    return painted(one, size, **{p: tuple(generator.integers(0, 256, 3).tolist()) for p in parts})


def another_mixed_in(one: Scene, size: int, index: int) -> np.ndarray:
    """The mean of the figure and one of another object at its place."""
    ((object_, material),) = one.pairs
    place = OBJECTS.index(object_) + 1 + index % (len(OBJECTS) - 1)
    other = replace(one, pairs=((OBJECTS[place % len(OBJECTS)], material),))
    return mixed(one, other, size)


FAULTY: dict[str, Picture] = {
    "half of the figure erased": lambda one, size, index: erased(one, size, SIDES[index % 4]),
    "a quarter of the figure erased": lambda one, size, index: erased(
        one, size, SIDES[index % 4], 0.25
    ),
    "a figure of another object mixed in": another_mixed_in,
    "random colours": random_colours,
    "the outer colour of another material": another_material("outer"),
    "the inner colour of another material": another_material("inner"),
    "the trim of another material": another_material("trim"),
    "the pattern of another material": another_material("pattern"),
    "no pattern": lambda one, size, index: draw(one, size, patterns=False),
}


def main() -> None:
    """Measure every row at every size."""
    reader = SceneReader()
    rows: dict[str, dict[str, float]] = {}
    for name, picture in {**GOOD, **FAULTY}.items():
        rows[name] = {}
        for size in SIZES:
            passed = 0
            for index, one in enumerate(fresh(COUNT) if name in GOOD else singles(COUNT)):
                reading = reader.read(picture(one, size, index))
                right = reading == truth(one) if name in GOOD else reading.pairs == one.pairs
                passed += right
            rows[name][str(size)] = passed / COUNT
        print(name, rows[name], file=sys.stderr, flush=True)
    result = {
        "right": {name: rows[name] for name in GOOD},
        "taken_for_the_scene": {name: rows[name] for name in FAULTY},
        "pictures": COUNT,
        **provenance(torch.device("cpu")),
    }
    path = RESULTS / "scene_reader.json"
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print("| picture | " + " | ".join(f"{size} pixels" for size in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    for name, shares in rows.items():
        print(f"| {name} | " + " | ".join(f"{share:.1%}" for share in shares.values()) + " |")


if __name__ == "__main__":
    main()
