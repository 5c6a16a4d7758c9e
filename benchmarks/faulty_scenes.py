"""Scenes and their right readings, after what leaves them alike, and after what does not."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from armchair.core.random import numpy_generator
from armchair.data.scenes import Scene, draw, drawing, scene
from armchair.data.scenes.backgrounds import BACKGROUND_COLOURS
from armchair.data.scenes.materials import PALETTES
from armchair.data.scenes.world import OPPOSITE
from armchair.evaluation.scene_reader import Reading

SIDES = ("left", "right", "top", "bottom")


def fresh(count: int) -> list[Scene]:
    """Scenes that no limit was chosen on, every other one of held-out pairs."""
    splits = ("validation", "held_out")
    return [scene(2024, index, split=splits[index % 2]) for index in range(count)]


def singles(count: int) -> list[Scene]:
    """The like, of one object."""
    return [one for one in fresh(3 * count) if one.size is not None][:count]


def truth(one: Scene) -> Reading:
    """What a reading of this scene must be."""
    pairs, relation = one.pairs, one.relation
    if relation in {"right of", "below"}:
        pairs, relation = pairs[::-1], OPPOSITE[relation]
    return Reading(pairs, one.background, one.size, relation)


# What leaves a scene what it is


def blurred(pixels: np.ndarray, radius: float = 1) -> np.ndarray:
    """Softened by so many pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def reconstructed(pixels: np.ndarray, index: int) -> np.ndarray:
    """What a small autoencoder does to a picture: soft edges, a tint, a little noise."""
    generator = numpy_generator("test/reconstructed", index)
    tint = generator.uniform(-8, 8, 3)
    noise = generator.normal(0, 6, pixels.shape)
    return (blurred(pixels, 0.7) + tint + noise).clip(0, 255).astype(np.uint8)


def saved_as_jpeg(pixels: np.ndarray) -> np.ndarray:
    """At quality 40."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


# What does not


def painted(one: Scene, size: int, **palette: Any) -> np.ndarray:
    """A scene of one object with parts of its material's palette replaced."""
    ((_, material),) = one.pairs
    original = PALETTES[material]
    PALETTES[material] = dataclasses.replace(original, **palette)
    drawing._figure.cache_clear()
    try:
        return draw(one, size)
    finally:
        PALETTES[material] = original
        drawing._figure.cache_clear()


def erased(one: Scene, size: int, side: str, share: float = 0.5) -> np.ndarray:
    """A scene of one object, whose figure is painted over with background from one side on."""
    pixels = draw(one, size)
    background = BACKGROUND_COLOURS[one.background]
    figure = (pixels != background).any(-1)
    down = side in ("top", "bottom")
    hit = np.flatnonzero(figure.any(1 if down else 0))
    kept = share if side in ("left", "top") else 1 - share
    cut = int(hit[0] + kept * (hit[-1] - hit[0]))
    part = slice(None, cut) if side in ("left", "top") else slice(cut, None)
    pixels[part if down else np.s_[:, part]] = background
    return pixels


def mixed(one: Scene, other: Scene, size: int) -> np.ndarray:
    """The mean of two scenes."""
    pictures = [draw(part, size).astype(float) for part in (one, other)]
    return np.mean(pictures, axis=0).astype(np.uint8)
