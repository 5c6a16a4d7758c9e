"""The materials: a palette, a pattern, and what each is a likeness of.

A pattern is a list of coloured outlines in the unit circle; an object shows it at its spots. The
palettes differ enough for a material to be known by its colours alone, and every outer and trim
colour stands apart from every background (see `backgrounds`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from armchair.data.scenes.outlines import Number, Outline, band, disc, ellipse, polygon, turned

Colour = tuple[int, int, int]  # 8-bit RGB
Pattern = tuple[tuple[Outline, Colour], ...]

DARK: Colour = (38, 32, 40)
_BLACK: Colour = (30, 26, 30)


@dataclass(frozen=True)
class Material:
    """What an object can be made of.

    Attributes:
        outer: Colour of rims, shells, and frames.
        inner: Colour of the flesh that the outer encloses.
        trim: Colour of handles, knobs, and feet.
        pattern: Coloured outlines in the unit circle, in drawing order.
        likeness: The thing itself, with its article, for "in the shape of ...".
    """

    outer: Colour
    inner: Colour
    trim: Colour
    pattern: Pattern
    likeness: str


def _at(radius: Number, degrees: Number) -> tuple[Number, Number]:
    angle = math.radians(degrees)
    return radius * math.cos(angle), radius * math.sin(angle)


_QUINCUNX = ((-0.6, -0.6), (0.6, -0.6), (0.0, 0.0), (-0.6, 0.6), (0.6, 0.6))
_DIAMOND = ((0.0, -0.62), (0.62, 0.0), (0.0, 0.62), (-0.62, 0.0))
_TRIANGLE = tuple(_at(0.5, degrees) for degrees in (90, 210, 330))


def _drops(
    places: Iterable[tuple[Number, Number]], colour: Colour, width: Number, height: Number
) -> Pattern:
    """Upright drops at these places."""
    return tuple((ellipse(x, y, width, height), colour) for x, y in places)


def _pit(colour: Colour) -> Pattern:
    return ((disc(0, 0, 0.78), colour),)


def _slice_of_citrus(pith: Colour, flesh: Colour) -> Pattern:
    """Five wedges of flesh on pith."""
    wedges = []
    for middle in range(-90, 270, 72):
        x, y = _at(0.25, middle)
        wedges.append((band(x, y, 0.6, 0.0, angles=(middle - 31, middle + 31)), flesh))
    return ((disc(0, 0, 1.0), pith), *wedges)


def _slice_of_kiwi(core: Colour, seeds: Colour) -> Pattern:
    """A core with five seeds around it, each pointing outwards."""
    around = [
        (ellipse(*_at(0.74, degrees), 0.27, 0.2, turn=degrees), seeds)
        for degrees in range(-90, 270, 72)
    ]
    return ((disc(0, 0, 0.4), core), *around)


def _sprinkles(*colours: Colour) -> Pattern:
    places = ((-0.5, -0.45, 50), (0.5, -0.5, -20), (0.55, 0.4, 70), (-0.4, 0.55, -30))
    bar = polygon((-0.4, -0.2), (0.4, -0.2), (0.4, 0.2), (-0.4, 0.2))
    return tuple(
        (turned(bar, degrees) + np.array([x, y]), colours[index % len(colours)])
        for index, (x, y, degrees) in enumerate(places)
    )


def _holes(colour: Colour) -> Pattern:
    holes = ((-0.42, -0.38, 0.44), (0.52, -0.5, 0.32), (0.36, 0.42, 0.48), (-0.45, 0.6, 0.3))
    return tuple((disc(*hole), colour) for hole in holes)


def _stripes(colour: Colour) -> Pattern:
    """Three slanting bars, cut off by the circle."""
    bars = []
    for middle in (-0.62, 0.0, 0.62):
        half = math.sqrt(1 - (abs(middle) + 0.15) ** 2)
        top, bottom = middle - 0.17, middle + 0.17
        bar = polygon((-half, top), (half, top), (half, bottom), (-half, bottom))
        bars.append((turned(bar, -45), colour))
    return tuple(bars)


def _calyx(light: Colour, star: Colour) -> Pattern:
    """A star of five points on a disc."""
    points = [_at(0.9 if corner % 2 == 0 else 0.42, 36 * corner - 90) for corner in range(10)]
    return ((disc(0, 0, 1.0), light), (polygon(*points), star))


PALETTES: dict[str, Material] = {
    "avocado": Material(
        outer=(62, 104, 54),
        inner=(204, 222, 116),
        trim=(146, 100, 54),
        pattern=_pit((122, 70, 36)),
        likeness="an avocado",
    ),
    "watermelon": Material(
        outer=(24, 128, 62),
        inner=(236, 58, 74),
        trim=(122, 196, 90),
        pattern=_drops(_DIAMOND, _BLACK, 0.22, 0.34),
        likeness="a watermelon",
    ),
    "orange": Material(
        outer=(240, 122, 10),
        inner=(255, 178, 66),
        trim=(58, 142, 60),
        pattern=_slice_of_citrus((255, 242, 218), (246, 136, 18)),
        likeness="an orange",
    ),
    "strawberry": Material(
        outer=(204, 22, 46),
        inner=(242, 78, 92),
        trim=(58, 150, 66),
        pattern=_drops(_QUINCUNX, (255, 224, 96), 0.24, 0.32),
        likeness="a strawberry",
    ),
    "lemon": Material(
        outer=(234, 204, 8),
        inner=(255, 238, 112),
        trim=(122, 178, 42),
        pattern=_slice_of_citrus((255, 254, 236), (240, 212, 30)),
        likeness="a lemon",
    ),
    "kiwi": Material(
        outer=(122, 84, 46),
        inner=(134, 200, 58),
        trim=(88, 156, 48),
        pattern=_slice_of_kiwi((240, 244, 200), _BLACK),
        likeness="a kiwi",
    ),
    "donut": Material(
        outer=(214, 164, 100),
        inner=(246, 126, 188),
        trim=(120, 72, 48),
        pattern=_sprinkles((255, 255, 255), (60, 110, 220), (255, 226, 80)),
        likeness="a donut",
    ),
    "cheese": Material(
        outer=(240, 178, 30),
        inner=(255, 216, 96),
        trim=(198, 44, 40),
        pattern=_holes((224, 146, 20)),
        likeness="a piece of cheese",
    ),
    "blueberry": Material(
        outer=(52, 72, 168),
        inner=(98, 126, 220),
        trim=(118, 78, 184),
        pattern=_calyx((168, 190, 246), (40, 50, 124)),
        likeness="a blueberry",
    ),
    "coconut": Material(
        outer=(104, 64, 42),
        inner=(252, 250, 244),
        trim=(172, 122, 78),
        pattern=_drops(_TRIANGLE, (104, 64, 42), 0.34, 0.34),
        likeness="a coconut",
    ),
    "dragonfruit": Material(
        outer=(218, 30, 124),
        inner=(252, 246, 250),
        trim=(130, 190, 60),
        pattern=_drops(_QUINCUNX, _BLACK, 0.27, 0.27),
        likeness="a dragonfruit",
    ),
    "peppermint": Material(
        outer=(0, 146, 136),
        inner=(226, 250, 242),
        trim=(216, 44, 60),
        pattern=_stripes((0, 146, 136)),
        likeness="a peppermint",
    ),
}
MATERIALS = tuple(PALETTES)
