"""Numbers that change as training goes: warm-ups, decays, anneals.

    learning_rate = Schedule.of(0.0, (0.01, 4.5e-4, "linear"), (1.0, 1e-6, "cosine"))
    learning_rate(0.5)

A schedule is a function of progress, the share of a run's pictures that have been seen, so that it
means the same at any batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from armchair.core.errors import ConfigError

Shape = Literal["linear", "cosine", "step"]


@dataclass(frozen=True, kw_only=True)
class Knot:
    """One point that a schedule passes through.

    Attributes:
        at: Progress in [0, 1].
        value: The schedule's value there.
        shape: How it gets there from the knot before: in a straight line, along half a cosine, or
            by staying and then jumping.
    """

    at: float
    value: float
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            expected = "one of " + ", ".join(get_args(Shape))
            raise ConfigError("shape", got=self.shape, expected=expected)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A piecewise function of progress; constant before its first knot and after its last.

    Attributes:
        knots: At least one, in order of progress.
    """

    knots: tuple[Knot, ...]

    def __post_init__(self) -> None:
        places = [knot.at for knot in self.knots]
        if not places or places != sorted(places) or places[0] < 0 or places[-1] > 1:
            raise ConfigError(
                "knots", got=places, expected="at least one, in order of progress, within [0, 1]"
            )

    @classmethod
    def of(cls, start: float, *knots: tuple[float, float, Shape]) -> Schedule:
        """A schedule from its value at progress 0 and (progress, value, shape) after that."""
        rest = (Knot(at=at, value=value, shape=shape) for at, value, shape in knots)
        return cls(knots=(Knot(at=0.0, value=start), *rest))

    def __call__(self, progress: float) -> float:
        """The value at `progress`, in [0, 1]."""
        before = self.knots[0]
        if progress <= before.at:
            return before.value
        for knot in self.knots[1:]:
            if progress < knot.at:
                share = (progress - before.at) / (knot.at - before.at)
                return _between(before.value, knot.value, share, knot.shape)
            before = knot
        return before.value


def _between(start: float, end: float, share: float, shape: Shape) -> float:
    if shape == "step":
        return start
    if shape == "cosine":
        share = 0.5 * (1 - math.cos(math.pi * share))
    return start + (end - start) * share
