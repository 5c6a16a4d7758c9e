"""The objects: what each is made of, whatever it is made of.

An object is a list of parts in drawing order, on a canvas of 100 by 100. A part is an outline with
the role that its colour plays in the material (outer, inner, trim, or the dark of clock hands), or
a spot: the circle in which the material shows its pattern. Only large plain shapes: each object
must be known at a glance where it is 27 pixels wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from armchair.data.scenes.outlines import (
    Number,
    Outline,
    arc,
    band,
    disc,
    ellipse,
    join,
    polygon,
    rectangle,
    smooth,
    turned,
)

Role = Literal["outer", "inner", "trim", "dark"]


@dataclass(frozen=True)
class Part:
    """One outline and the role of its colour."""

    role: Role
    outline: Outline


@dataclass(frozen=True)
class Spot:
    """The circle in which a material's pattern appears."""

    x: Number
    y: Number
    radius: Number


Parts = tuple[Part | Spot, ...]


def _outer(*outlines: Outline) -> Parts:
    return tuple(Part("outer", outline) for outline in outlines)


def _inner(*outlines: Outline) -> Parts:
    return tuple(Part("inner", outline) for outline in outlines)


def _trim(*outlines: Outline) -> Parts:
    return tuple(Part("trim", outline) for outline in outlines)


def _dark(*outlines: Outline) -> Parts:
    return tuple(Part("dark", outline) for outline in outlines)


def _tilted(parts: Parts, degrees: Number) -> Parts:
    """The parts turned around the middle of the canvas; patterns stay upright."""
    tilted: list[Part | Spot] = []
    for part in parts:
        if isinstance(part, Part):
            tilted.append(Part(part.role, turned(part.outline - 50, degrees) + 50))
        else:
            ((x, y),) = turned(polygon((part.x - 50, part.y - 50)), degrees) + 50
            tilted.append(Spot(float(x), float(y), part.radius))
    return tuple(tilted)


ARMCHAIR: Parts = (
    *_trim(rectangle(13, 84, 25, 98, rounding=3), rectangle(75, 84, 87, 98, rounding=3)),
    *_outer(rectangle(15, 2, 85, 76, rounding=27), rectangle(14, 66, 86, 90, rounding=6)),
    *_inner(rectangle(24, 11, 76, 59, rounding=20)),
    Spot(50, 35, 21),
    *_inner(rectangle(25, 64, 75, 78, rounding=6)),
    *_outer(rectangle(0, 42, 25, 90, rounding=11), rectangle(75, 42, 100, 90, rounding=11)),
)

TEAPOT: Parts = (
    *_outer(
        band(78, 58, 22, 12, angles=(-100, 110)),
        polygon((26, 54), (12, 30), (0, 29), (4, 40), (12, 62), (26, 78)),
        ellipse(48, 60, 36, 31),
    ),
    *_inner(ellipse(48, 60, 28, 23)),
    Spot(48, 60, 20),
    *_trim(ellipse(48, 32, 20, 7), disc(48, 20, 7.5), rectangle(28, 85, 68, 94, rounding=4)),
)

LAMP: Parts = (
    *_trim(rectangle(45, 50, 55, 90)),
    *_outer(polygon((28, 2), (72, 2), (95, 58), (5, 58))),
    *_inner(polygon((34, 10), (66, 10), (82, 50), (18, 50))),
    Spot(50, 31, 18),
    *_outer(arc(50, 98, 26, angles=(180, 360), flatness=0.5)),
)

MUG: Parts = (
    *_trim(band(68, 54, 31, 18, angles=(-90, 90))),
    *_outer(
        rectangle(0, 30, 70, 97, rounding=14), rectangle(0, 13, 70, 60), ellipse(35, 13, 35, 10)
    ),
    *_dark(ellipse(35, 14, 27, 6)),
    *_inner(rectangle(9, 30, 61, 88, rounding=9)),
    Spot(35, 59, 23),
)

CLOCK: Parts = (
    *_trim(
        disc(21, 19, 17),
        disc(79, 19, 17),
        polygon((22, 78), (34, 86), (22, 99), (12, 99)),
        polygon((78, 78), (66, 86), (78, 99), (88, 99)),
    ),
    *_outer(disc(50, 54, 44)),
    *_inner(disc(50, 54, 34)),
    Spot(50, 54, 25),
    *_dark(
        polygon((46.5, 28), (53.5, 28), (53.5, 58), (46.5, 58)),
        polygon((49, 50), (72, 62), (69, 69), (46, 57)),
    ),
)

BACKPACK: Parts = (
    *_trim(
        band(50, 16, 16, 8, angles=(170, 370)),
        rectangle(2, 52, 24, 90, rounding=8),
        rectangle(76, 52, 98, 90, rounding=8),
    ),
    *_outer(rectangle(13, 12, 87, 98, rounding=24)),
    *_inner(rectangle(23, 21, 77, 43, rounding=11), rectangle(20, 51, 80, 91, rounding=10)),
    Spot(50, 71, 19),
    *_trim(rectangle(44, 36, 56, 54, rounding=3)),
)

HOUSE: Parts = (
    *_trim(rectangle(70, 6, 84, 40)),
    *_outer(rectangle(10, 44, 90, 97)),
    *_inner(rectangle(17, 46, 83, 97)),
    *_outer(polygon((50, 1), (100, 48), (0, 48))),
    *_inner(disc(50, 30, 9)),
    Spot(38, 71, 19),
    *_trim(rectangle(62, 62, 79, 97)),
)

GUITAR: Parts = _tilted(
    (
        *_outer(rectangle(40, -14, 60, 2, rounding=3)),
        *_trim(rectangle(45, -2, 55, 50)),
        *_outer(disc(50, 50, 22), disc(50, 80, 31), rectangle(33, 52, 67, 68)),
        *_inner(disc(50, 50, 14), disc(50, 80, 23), rectangle(41, 52, 59, 68)),
        *_trim(rectangle(46, 28, 54, 44)),
        *_dark(disc(50, 47, 8)),
        Spot(50, 80, 22),
    ),
    38,
)

BOOT: Parts = (
    *_outer(
        smooth(
            *((16, 12), (62, 12), (62, 34), (65, 50), (78, 58), (94, 66)),
            *((99, 78), (98, 90), (56, 92), (14, 90), (12, 66)),
        )
    ),
    *_inner(
        smooth(
            *((24, 24), (53, 24), (54, 46), (62, 62)),
            *((84, 70), (88, 80), (56, 82), (22, 80)),
        )
    ),
    Spot(40, 56, 19),
    *_trim(
        rectangle(10, 86, 58, 98, rounding=4),
        rectangle(48, 86, 100, 98, rounding=4),
        rectangle(11, 4, 67, 19, rounding=5),
    ),
)

UMBRELLA: Parts = (
    *_trim(
        rectangle(47, 0, 53, 14),
        rectangle(46, 44, 54, 86),
        band(41, 85, 13, 5, angles=(0, 180)),
    ),
    *_outer(
        join(
            arc(50, 55, 50, angles=(180, 360)),
            arc(83.3, 55, 16.7, angles=(0, -180), flatness=0.4),
            arc(50, 55, 16.7, angles=(0, -180), flatness=0.4),
            arc(16.7, 55, 16.7, angles=(0, -180), flatness=0.4),
        )
    ),
    *_inner(
        join(
            arc(50, 52, 40, angles=(185, 355)),
            arc(50, 49.4, 28, angles=(350, 190), flatness=0.22),
        )
    ),
    Spot(50, 29, 16),
)

SAILBOAT: Parts = (
    *_trim(rectangle(32, 0, 40, 80), polygon((28, 20), (28, 64), (0, 64))),
    *_outer(polygon((40, 4), (56, 11), (71, 24), (84, 40), (92, 54), (96, 66), (40, 66))),
    *_inner(polygon((46, 15), (57, 21), (69, 32), (79, 45), (86, 59), (46, 59))),
    Spot(61, 44, 16),
    *_outer(polygon((0, 72), (100, 72), (82, 98), (18, 98))),
    *_inner(polygon((12, 79), (88, 79), (83, 86), (17, 86))),
)

ROCKET: Parts = (
    *_trim(
        polygon((30, 52), (8, 78), (8, 94), (34, 80)),
        polygon((70, 52), (92, 78), (92, 94), (66, 80)),
        polygon((38, 82), (62, 82), (50, 100)),
    ),
    *_outer(
        smooth(
            *((50, 0), (68, 16), (77, 42), (74, 68), (64, 86)),
            *((36, 86), (26, 68), (23, 42), (32, 16)),
        )
    ),
    *_inner(
        smooth(
            *((50, 24), (64, 32), (68, 48), (66, 66), (58, 78)),
            *((42, 78), (34, 66), (32, 48), (36, 32)),
        )
    ),
    Spot(50, 52, 18),
)

PARTS: dict[str, Parts] = {
    "armchair": ARMCHAIR,
    "teapot": TEAPOT,
    "lamp": LAMP,
    "mug": MUG,
    "clock": CLOCK,
    "backpack": BACKPACK,
    "house": HOUSE,
    "guitar": GUITAR,
    "boot": BOOT,
    "umbrella": UMBRELLA,
    "sailboat": SAILBOAT,
    "rocket": ROCKET,
}
OBJECTS = tuple(PARTS)
