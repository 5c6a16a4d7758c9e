"""Finds the object, the material, and the place that explain one figure of a scene.

A window around the figure is resampled to a fixed size and compared with the renderings of every
object in every material, at many shifts and scales, coarse to fine. This names the best candidate
wherever a figure is; whether the candidate is good enough is for `scene_reader` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from armchair.data.scenes import MATERIALS, OBJECTS, Pair, Place, Scene, draw
from armchair.data.scenes.backgrounds import BACKGROUND_COLOURS

WORKING_SIZE = 64  # pixels; every picture is read at this size

_PAIRS: tuple[Pair, ...] = tuple(product(OBJECTS, MATERIALS))
_TEMPLATE_EXTENT = 0.7
_WINDOW_SIZE = 24  # pixels of a window once resampled
_WINDOW_MARGIN = 1.12  # a window's side over its figure's longest side
_PADDING = 32  # pixels around the picture, so that windows may reach over its edge
_FIRST_SCALE = 0.97  # a mask is a little larger than its figure
_SEARCH = ((1.4, 0.07), (0.7, 0.035), (0.35, 0.017))  # (shift in pixels, share of scale) a round


class Box(NamedTuple):
    """An upright box in pixels of the working size; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def longest_side(self) -> int:
        """The longer of width and height, in pixels."""
        return max(self.right - self.left, self.bottom - self.top)


@dataclass(frozen=True)
class Fit:
    """The candidate that explains a figure best.

    Attributes:
        pair: Its object and material.
        place: Where it is.
        object_doubt: Its distance from the picture over that of the best other object: 0 if it
            fits perfectly, 1 if another fits as well.
        material_doubt: The same against the same object in the best other material.
    """

    pair: Pair
    place: Place
    object_doubt: float
    material_doubt: float


class FigureFitter:
    """Fits renderings to figures; keeps the renderings it made, background by background."""

    def __init__(self) -> None:
        self._templates: dict[str, Float[np.ndarray, "P F"]] = {}

    def fit(self, picture: Image.Image, box: Box, background: str) -> Fit:
        """Find the candidate that explains the figure in `box` best.

        Args:
            picture: RGB, WORKING_SIZE pixels along a side.
            box: Around the figure, give or take two pixels.
            background: One of BACKGROUNDS.
        """
        templates = self._templates_on(background)
        padded = _padded(picture, background)
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        side = box.longest_side * _FIRST_SCALE
        distances = np.empty(0)
        best = 0
        for shift, growth in _SEARCH:
            windows = [
                (x + shift * along, y + shift * across, side * (1 + growth * larger))
                for along, across, larger in product((-1, 0, 1), repeat=3)
            ]
            crops = np.stack([_crop(padded, *window) for window in windows])  # 27 F
            squares = np.square(crops).sum(1)[:, None] + np.square(templates).sum(1)
            distances = np.maximum(squares - 2 * crops @ templates.T, 0)  # 27 P
            window, best = divmod(int(distances.argmin()), len(_PAIRS))
            x, y, side = windows[window]
        place = Place(x / WORKING_SIZE, y / WORKING_SIZE, side / WORKING_SIZE)
        return Fit(_PAIRS[best], place, *_doubts(np.sqrt(distances.min(0)), best))

    def _templates_on(self, background: str) -> Float[np.ndarray, "P F"]:
        """Every pair's rendering in its window, one a row, in the order of _PAIRS."""
        if background not in self._templates:
            place = Place(0.5, 0.5, _TEMPLATE_EXTENT)
            middle, side = WORKING_SIZE / 2, WORKING_SIZE * _TEMPLATE_EXTENT
            rows = []
            for pair in _PAIRS:
                pixels = draw(Scene((pair,), background, None, None, (place,)), WORKING_SIZE)
                padded = _padded(Image.fromarray(pixels), background)
                rows.append(_crop(padded, middle, middle, side))
            self._templates[background] = np.stack(rows)
        return self._templates[background]


def _padded(picture: Image.Image, background: str) -> Image.Image:
    """The picture with a frame of background."""
    side = WORKING_SIZE + 2 * _PADDING
    padded = Image.new("RGB", (side, side), BACKGROUND_COLOURS[background])
    padded.paste(picture, (_PADDING, _PADDING))
    return padded


def _crop(padded: Image.Image, x: float, y: float, side: float) -> Float[np.ndarray, "F"]:
    """The window around a figure at (x, y) whose longest side is `side` pixels, flattened."""
    half = side * _WINDOW_MARGIN / 2
    x, y = x + _PADDING, y + _PADDING
    window = padded.resize(
        (_WINDOW_SIZE, _WINDOW_SIZE),
        Image.Resampling.BILINEAR,
        box=(x - half, y - half, x + half, y + half),
    )
    return np.asarray(window, dtype=np.float32).ravel()


def _doubts(distances: Float[np.ndarray, "P"], best: int) -> tuple[float, float]:
    """The best pair's distance over the best other object's, and the best other material's."""
    by_pair = distances.reshape(len(OBJECTS), len(MATERIALS))
    object_, material = divmod(best, len(MATERIALS))
    other_object = np.delete(by_pair, object_, axis=0).min()
    other_material = np.delete(by_pair[object_], material).min()
    tiny = np.finfo(np.float32).tiny
    return (
        float(distances[best] / max(other_object, tiny)),
        float(distances[best] / max(other_material, tiny)),
    )
