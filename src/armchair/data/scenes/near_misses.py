"""Scenes that differ from another in one thing, for captions that are nearly true of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from armchair.data.scenes.backgrounds import BACKGROUNDS
from armchair.data.scenes.world import RELATIONS, SEEN_PAIRS, SIZES, Scene, pick

Name = TypeVar("Name")

_STATED_ONCE = {"background": BACKGROUNDS, "size": SIZES, "relation": RELATIONS}
# Objects twice as often as anything else: shapes are what is hardest to see.
_OF_ONE = ("object", "object", "material", "background", "size")
_OF_TWO = ("object", "object", "material", "background", "relation", "order")


def near_miss(scene: Scene, generator: np.random.Generator) -> Scene:
    """The scene with one thing changed, drawn by lot; its figures stay at their places.

    What changes is an object or its material, within SEEN_PAIRS, the background, the size of a
    single object, the relation of two, or which of the two is which.

    Args:
        scene: A scene of SEEN_PAIRS.
        generator: Where the choices come from.
    """
    what = pick(_OF_ONE if scene.relation is None else _OF_TWO, generator.random())
    choice = generator.random()
    if what in _STATED_ONCE:
        changed = _another(_STATED_ONCE[what], getattr(scene, what), choice)
        return dataclasses.replace(scene, **{what: changed})
    if what == "order":
        return dataclasses.replace(scene, pairs=scene.pairs[::-1])
    which = int(generator.integers(len(scene.pairs)))
    object_, material = scene.pairs[which]
    others = {object_ for n, (object_, _) in enumerate(scene.pairs) if n != which}
    if what == "object":
        fitting = [p for p in SEEN_PAIRS if p[1] == material and p[0] not in others]
    else:
        fitting = [p for p in SEEN_PAIRS if p[0] == object_]
    pairs = list(scene.pairs)
    pairs[which] = _another(fitting, scene.pairs[which], choice)
    return dataclasses.replace(scene, pairs=tuple(pairs))


def _another(names: Sequence[Name], than: Name | None, choice: float) -> Name:
    """One of the names, other than the one there is."""
    return pick([name for name in names if name != than], choice)
