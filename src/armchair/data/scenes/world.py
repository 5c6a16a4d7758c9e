"""What a scene is, and how one is drawn by lot.

A scene is one object, or two in a relation, each made in a material, on a background:

    scene(seed=0, index=7)                      a pure function, the same on every machine
    scene(seed=0, index=7, split="held_out")    of the pairs that training never shows

About one (object, material) pair in eight is held out: it occurs in no training scene, alone or
beside another, while its object and its material occur there with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from armchair.core.errors import UnknownNameError
from armchair.core.random import numpy_generator
from armchair.data.scenes.backgrounds import BACKGROUNDS
from armchair.data.scenes.materials import MATERIALS
from armchair.data.scenes.objects import OBJECTS

Name = TypeVar("Name")

Pair = tuple[str, str]  # (object, material)
Size = Literal["small", "large"]
Relation = Literal["left of", "right of", "above", "below"]

SIZES: tuple[Size, ...] = get_args(Size)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
SPLITS = ("train", "validation", "held_out")
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

HELD_OUT_PAIRS: tuple[Pair, ...] = (
    ("armchair", "avocado"),
    ("armchair", "dragonfruit"),
    ("teapot", "watermelon"),
    ("lamp", "strawberry"),
    ("lamp", "cheese"),
    ("mug", "kiwi"),
    ("mug", "blueberry"),
    ("clock", "orange"),
    ("backpack", "lemon"),
    ("backpack", "coconut"),
    ("house", "donut"),
    ("guitar", "cheese"),
    ("guitar", "peppermint"),
    ("boot", "watermelon"),
    ("umbrella", "kiwi"),
    ("umbrella", "orange"),
    ("sailboat", "strawberry"),
    ("rocket", "avocado"),
)
SEEN_PAIRS: tuple[Pair, ...] = tuple(
    (object_, material)
    for object_ in OBJECTS
    for material in MATERIALS
    if (object_, material) not in HELD_OUT_PAIRS
)

_SHARE_OF_TWO = 0.5  # of all scenes have two objects
_EXTENTS: dict[Size, tuple[float, float]] = {"small": (0.40, 0.46), "large": (0.71, 0.78)}
_EXTENTS_OF_TWO = (0.40, 0.43)
_MARGIN = 0.03  # kept free at the picture's edge
_MAX_DRIFT = 0.14  # of a single figure from the middle
_APART = 0.245  # from the middle to each of two figures, along their relation
_DRIFT_OF_TWO = (0.013, 0.07)  # along their relation, and across it


@dataclass(frozen=True)
class Place:
    """Where a figure is: its middle and its longest side, in units of the picture's side."""

    x: float
    y: float
    extent: float


@dataclass(frozen=True)
class Scene:
    """One picture's content.

    Attributes:
        pairs: One or two (object, material).
        background: One of BACKGROUNDS.
        size: One of SIZES for a single object, None for two.
        relation: One of RELATIONS for two objects (the first is, say, left of the second), None
            for one.
        places: Where each is.
    """

    pairs: tuple[Pair, ...]
    background: str
    size: Size | None
    relation: Relation | None
    places: tuple[Place, ...]


def scene(seed: int, index: int, *, split: str = "train") -> Scene:
    """The scene with this index, a pure function of its arguments.

    Args:
        seed: Which world.
        index: Which scene of that world, from 0, without an upper limit.
        split: "train" and "validation" are separate streams over SEEN_PAIRS, "held_out" is one
            over HELD_OUT_PAIRS.

    Raises:
        UnknownNameError: If there is no such split.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    generator = numpy_generator(f"scenes/{split}", seed, index)
    choices = generator.random(16).tolist()
    pairs = HELD_OUT_PAIRS if split == "held_out" else SEEN_PAIRS
    first = pick(pairs, choices[0])
    background = pick(BACKGROUNDS, choices[1])
    if choices[2] >= _SHARE_OF_TWO:
        return single_scene(first, pick(SIZES, choices[3]), background, choices[4:7])
    others = [pair for pair in pairs if pair[0] != first[0]]
    second = pick(others, choices[3])
    relation = pick(RELATIONS, choices[4])
    return double_scene((first, second), relation, background, choices[5:11])


def single_scene(pair: Pair, size: Size, background: str, jitter: Sequence[float]) -> Scene:
    """A scene of one object.

    Args:
        pair: The object and its material.
        size: One of SIZES.
        background: One of BACKGROUNDS.
        jitter: Three numbers in [0, 1] that move and scale the figure within its limits.
    """
    smallest, largest = _EXTENTS[size]
    extent = smallest + (largest - smallest) * float(jitter[2])
    drift = min(_MAX_DRIFT, 0.5 - _MARGIN - extent / 2)
    x, y = (0.5 + drift * (2 * float(part) - 1) for part in jitter[:2])
    return Scene((pair,), background, size, None, (Place(x, y, extent),))


def double_scene(
    pairs: tuple[Pair, Pair], relation: Relation, background: str, jitter: Sequence[float]
) -> Scene:
    """A scene of two objects.

    Args:
        pairs: The objects and their materials.
        relation: One of RELATIONS: where the first is, seen from the second.
        background: One of BACKGROUNDS.
        jitter: Six numbers in [0, 1] that move and scale the figures within their limits.
    """
    smallest, largest = _EXTENTS_OF_TWO
    side = -1 if relation in {"left of", "above"} else 1
    places = []
    for sign, (along, across, grown) in ((side, jitter[:3]), (-side, jitter[3:6])):
        main = 0.5 + sign * _APART + _DRIFT_OF_TWO[0] * (2 * float(along) - 1)
        cross = 0.5 + _DRIFT_OF_TWO[1] * (2 * float(across) - 1)
        x, y = (main, cross) if relation in {"left of", "right of"} else (cross, main)
        places.append(Place(x, y, smallest + (largest - smallest) * float(grown)))
    return Scene(pairs, background, None, relation, tuple(places))


def pick(names: Sequence[Name], choice: float) -> Name:
    """The name at `choice`, a number in [0, 1), along the list."""
    return names[int(choice * len(names))]
