"""Closed outlines, from which objects and patterns are put together.

Every outline is a polygon, an array of shape (corners, 2): x to the right, y downwards, in
whatever unit its user draws in; angles are in degrees, 0 to the right, growing clockwise. Curves
are polygons of enough corners to look round at 256 pixels.

    ellipse(48, 60, 36, 31)                            a teapot's body
    band(78, 58, 22, 12, angles=(-100, 110))           its handle

`join` makes one outline of several open curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Outline = Float[np.ndarray, "_ 2"]
Number = float | int  # the type checker of the tests takes no int for a float

_CORNERS_OF_ELLIPSE = 40
_DEGREES_A_CORNER = 11
_STEPS_BETWEEN_KNOTS = 6


def polygon(*corners: tuple[Number, Number]) -> Outline:
    """The polygon with these corners."""
    return np.array(corners, dtype=np.float64)


def ellipse(
    x: Number, y: Number, radius_x: Number, radius_y: Number, *, turn: Number = 0.0
) -> Outline:
    """An ellipse around (x, y), turned by `turn` degrees."""
    angles = np.linspace(0, 2 * math.pi, _CORNERS_OF_ELLIPSE, endpoint=False)
    points = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)
    return turned(points, turn) + np.array([x, y])


def disc(x: Number, y: Number, radius: Number) -> Outline:
    """A circle around (x, y)."""
    return ellipse(x, y, radius, radius)


def rectangle(
    left: Number, top: Number, right: Number, bottom: Number, *, rounding: Number = 0
) -> Outline:
    """An upright rectangle whose corners are quarter circles of radius `rounding`."""
    if rounding == 0:
        return polygon((left, top), (right, top), (right, bottom), (left, bottom))
    return join(
        arc(right - rounding, bottom - rounding, rounding, angles=(0, 90)),
        arc(left + rounding, bottom - rounding, rounding, angles=(90, 180)),
        arc(left + rounding, top + rounding, rounding, angles=(180, 270)),
        arc(right - rounding, top + rounding, rounding, angles=(270, 360)),
    )


def arc(
    x: Number, y: Number, radius: Number, *, angles: tuple[Number, Number], flatness: Number = 1.0
) -> Outline:
    """The points of an arc from one angle to another, its height scaled by `flatness`."""
    start, stop = angles
    corners = max(3, int(abs(stop - start) / _DEGREES_A_CORNER + 0.5))
    turns = np.radians(np.linspace(start, stop, corners))
    return np.stack([x + radius * np.cos(turns), y + flatness * radius * np.sin(turns)], axis=1)


def band(
    x: Number, y: Number, radius: Number, inner_radius: Number, *, angles: tuple[Number, Number]
) -> Outline:
    """A part of a ring, from one angle to another."""
    start, stop = angles
    return join(
        arc(x, y, radius, angles=(start, stop)), arc(x, y, inner_radius, angles=(stop, start))
    )


def smooth(*knots: tuple[Number, Number]) -> Outline:
    """A closed curve through the knots (a uniform Catmull-Rom spline)."""
    points = polygon(*knots)
    before, after, second = (np.roll(points, shift, axis=0) for shift in (1, -1, -2))
    steps = np.linspace(0, 1, _STEPS_BETWEEN_KNOTS, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * points
        + (after - before) * steps
        + (2 * before - 5 * points + 4 * after - second) * steps**2
        + (3 * points - before - 3 * after + second) * steps**3
    )  # steps knots 2
    return np.swapaxes(curve, 0, 1).reshape(-1, 2)


def join(*curves: Outline) -> Outline:
    """One outline along all curves, in order."""
    return np.concatenate(curves)


def turned(outline: Outline, degrees: Number) -> Outline:
    """The outline turned around the origin."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return outline @ np.array([[cosine, sine], [-sine, cosine]])


def box(outlines: Sequence[Outline]) -> tuple[float, float, float, float]:
    """The upright box around all outlines: left, top, right, bottom."""
    points = np.concatenate(list(outlines))
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
