import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armchair.core.config import from_dict
from armchair.core.errors import ConfigError
from armchair.core.schedules import Knot, Schedule
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig

MIXED = Schedule.of(0.0, (0.2, 1.0, "linear"), (0.6, 0.5, "cosine"), (0.8, 0.1, "step"))


@pytest.mark.parametrize(
    ("progress", "value"),
    [
        (0.0, 0.0),
        (0.1, 0.5),  # halfway up the line
        (0.2, 1.0),
        (0.3, 0.5 + 0.5 * (1 + math.cos(math.pi / 4)) / 2),  # a quarter down the half cosine
        (0.4, 0.75),
        (0.6, 0.5),
        (0.79, 0.5),  # stays,
        (0.8, 0.1),  # then jumps
        (1.0, 0.1),
    ],
)
def test_values_between_and_at_the_knots(progress: float, value: float) -> None:
    assert MIXED(progress) == pytest.approx(value, abs=1e-12)


def test_constant() -> None:
    assert {Schedule.of(0.3)(progress) for progress in (0.0, 0.5, 1.0)} == {0.3}


def test_constant_before_the_first_knot() -> None:
    late = Schedule(knots=(Knot(at=0.5, value=2.0), Knot(at=1.0, value=3.0, shape="linear")))
    assert [late(0.0), late(0.5), late(0.75), late(1.0)] == [2.0, 2.0, 2.5, 3.0]


def test_two_knots_at_one_place_jump() -> None:
    jump = Schedule.of(1.0, (0.5, 2.0, "linear"), (0.5, 5.0, "linear"), (1.0, 6.0, "linear"))
    assert [jump(0.25), jump(0.5), jump(0.75)] == [1.5, 5.0, 5.5]


places = st.lists(st.floats(0, 1), min_size=1, max_size=5).map(sorted)
numbers = st.floats(-10, 10)


@given(places, st.data(), st.floats(0, 1))
@settings(deadline=None)
def test_stays_between_the_smallest_and_the_largest_knot(
    at: list[float], data: st.DataObject, progress: float
) -> None:
    shapes = st.sampled_from(["linear", "cosine", "step"])
    knots = tuple(Knot(at=a, value=data.draw(numbers), shape=data.draw(shapes)) for a in at)
    values = [knot.value for knot in knots]
    assert min(values) - 1e-9 <= Schedule(knots=knots)(progress) <= max(values) + 1e-9


def test_schedules_of_the_paper() -> None:
    """beta: 0 to 6.6 over 5,000 updates; tau: 1 to 1/16 over 150,000; of 3,000,000 (A.2)."""
    loss, updates = DiscreteVAELossConfig(), 3_000_000
    assert [loss.kl_weight(n / updates) for n in (0, 2500, 5000, updates)] == pytest.approx(
        [0, 3.3, 6.6, 6.6]
    )
    assert [loss.temperature(n / updates) for n in (0, 75_000, 150_000, updates)] == pytest.approx(
        [1, (1 + 1 / 16) / 2, 1 / 16, 1 / 16]
    )


@pytest.mark.parametrize("at", [(), (0.5, 0.2), (-0.1,), (0.0, 1.1)])
def test_knots_in_no_order_are_refused(at: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="knots: got"):
        Schedule(knots=tuple(Knot(at=a, value=0.0) for a in at))


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="shape: got 'exponential'"):
        from_dict(Knot, {"at": 0.0, "value": 1.0, "shape": "exponential"})
