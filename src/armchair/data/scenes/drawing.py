"""Draws a scene as vectors, at any size.

Each figure is drawn on a canvas of its own, several times too large, and reduced by averaging:
that is the anti-aliasing. Outlines fall on a grid of at least 512 positions over the picture, so
64 and 128 pixels show the same shapes.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from armchair.data.scenes.backgrounds import BACKGROUND_COLOURS
from armchair.data.scenes.materials import DARK, PALETTES, Colour
from armchair.data.scenes.objects import PARTS, Part
from armchair.data.scenes.outlines import box
from armchair.data.scenes.world import Place, Scene

_GRID = 512  # positions over the picture's side on which outlines fall
_MIN_OVERSAMPLING = 4


def draw(scene: Scene, size: int, *, patterns: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a scene as an 8-bit RGB picture of `size` by `size` pixels.

    Args:
        scene: What to draw.
        size: Side in pixels.
        patterns: Draw the materials' patterns; without them, only their plain colours.
    """
    background = BACKGROUND_COLOURS[scene.background]
    picture = Image.new("RGB", (size, size), background)
    for pair, place in zip(scene.pairs, scene.places, strict=True):
        _draw_figure(picture, *pair, place, background, patterns)
    return np.array(picture)


def _draw_figure(
    picture: Image.Image,
    object_: str,
    material: str,
    place: Place,
    background: Colour,
    patterns: bool,
) -> None:
    """Paste one figure with its surroundings into the picture."""
    size = picture.width
    points, shapes, (half_width, half_height) = _figure(object_, material, patterns)
    left = math.floor((place.x - half_width * place.extent) * size)
    top = math.floor((place.y - half_height * place.extent) * size)
    right = math.ceil((place.x + half_width * place.extent) * size)
    bottom = math.ceil((place.y + half_height * place.extent) * size)

    times = max(_MIN_OVERSAMPLING, _GRID // size)
    canvas = Image.new("RGB", ((right - left) * times, (bottom - top) * times), background)
    pencil = ImageDraw.Draw(canvas)
    scale = size * times
    corner = (place.x * scale - left * times - 0.5, place.y * scale - top * times - 0.5)
    on_canvas = np.rint(points * (place.extent * scale) + corner).ravel().tolist()
    for start, stop, colour in shapes:
        pencil.polygon(on_canvas[start:stop], fill=colour)
    picture.paste(canvas.reduce(times), (left, top))


@functools.cache
def _figure(
    object_: str, material: str, patterns: bool
) -> tuple[np.ndarray, list[tuple[int, int, Colour]], tuple[float, float]]:
    """An object in a material, ready to draw.

    Returns:
        All corners of all shapes, of shape (N, 2), around the origin and scaled to a longest side
        of 1; each shape's range in the flattened corners with its colour; and half the width and
        half the height of the whole.
    """
    palette = PALETTES[material]
    roles = {"outer": palette.outer, "inner": palette.inner, "trim": palette.trim, "dark": DARK}
    coloured = []
    for part in PARTS[object_]:
        if isinstance(part, Part):
            coloured.append((part.outline, roles[part.role]))
        elif patterns:
            for outline, colour in palette.pattern:
                coloured.append((outline * part.radius + np.array([part.x, part.y]), colour))

    left, top, right, bottom = box([outline for outline, _ in coloured])
    longest = max(right - left, bottom - top)
    middle = ((left + right) / 2, (top + bottom) / 2)
    points = np.concatenate([(outline - middle) / longest for outline, _ in coloured])
    shapes, start = [], 0
    for outline, colour in coloured:
        stop = start + outline.size
        shapes.append((start, stop, colour))
        start = stop
    return points, shapes, ((right - left) / longest / 2, (bottom - top) / longest / 2)
