import math

import pytest
import torch

from armchair.core.errors import ConfigError
from armchair.diffusion.schedules import (
    NoiseSchedule,
    at,
    cosine_schedule,
    even_timesteps,
    linear_schedule,
    log_snr_timesteps,
)


def test_the_linear_schedule_is_the_papers() -> None:
    schedule = linear_schedule()
    assert schedule.num_timesteps == 1000
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.betas[0].item() == pytest.approx(1e-4)
    assert schedule.betas[-1].item() == pytest.approx(0.02)
    assert schedule.betas[500].item() == pytest.approx(1e-4 + 0.0199 * 500 / 999)
    assert schedule.alpha_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)


def test_the_linear_schedule_ends_alike_at_any_length() -> None:
    lengths = [linear_schedule(n).alpha_bar[-1].log().item() for n in (500, 1000, 4000)]
    assert max(lengths) - min(lengths) < 0.2


def test_the_cosine_schedule_is_the_papers() -> None:
    schedule = cosine_schedule()
    f = [math.cos((n / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(1001)]
    for t in (0, 1, 250, 500, 750, 990):
        assert schedule.alpha_bar[t].item() == pytest.approx(f[t + 1] / f[0], rel=1e-9)
    assert schedule.betas[0].item() == pytest.approx(4.1284e-5, rel=1e-4)
    assert schedule.betas[-1].item() == pytest.approx(0.999)


def test_what_a_schedule_knows() -> None:
    schedule = cosine_schedule(10)
    assert schedule.alpha_bar_before[0] == 1
    assert torch.equal(schedule.alpha_bar_before[1:], schedule.alpha_bar[:-1])
    signal, noise = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
    torch.testing.assert_close(schedule.log_snr, (signal / noise).log())
    torch.testing.assert_close((1 - schedule.betas).cumprod(0), schedule.alpha_bar)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 27, 250, 999, 1000])
def test_timesteps_go_from_the_noisiest_to_the_first(num_steps: int) -> None:
    """A rival's DDIM starts below T-1."""
    timesteps = even_timesteps(1000, num_steps)
    assert len(timesteps) == num_steps
    assert timesteps[0] == 999
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert num_steps == 1 or timesteps[-1] == 0


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 20, 250, 999, 1000])
@pytest.mark.parametrize("schedule", [cosine_schedule(), linear_schedule()])
def test_timesteps_even_in_log_snr_go_from_the_noisiest_to_the_first(
    schedule: NoiseSchedule, num_steps: int
) -> None:
    timesteps = log_snr_timesteps(schedule, num_steps)
    assert len(timesteps) == num_steps
    assert timesteps[0] == 999
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert num_steps == 1 or timesteps[-1] == 0


@pytest.mark.parametrize("num_steps", [7, 10, 20])
def test_timesteps_even_in_log_snr_are_so(num_steps: int) -> None:
    schedule = cosine_schedule()
    strides = schedule.log_snr[log_snr_timesteps(schedule, num_steps)].diff()[1:]
    assert strides.max() < 1.5 * strides.min()  # but for the whole numbers that timesteps are
    even = schedule.log_snr[even_timesteps(1000, num_steps)].diff()[1:]
    assert even[-1] > 3 * even[:-1].max()  # the long step before the last


@pytest.mark.parametrize("num_steps", [4, 7, 10])
def test_timesteps_of_a_part_of_a_schedule_are_even_from_its_end_on(num_steps: int) -> None:
    part = cosine_schedule().until(600)
    assert torch.equal(part.alpha_bar, cosine_schedule().alpha_bar[:600])
    strides = part.log_snr[log_snr_timesteps(part, num_steps)].diff()
    assert strides.max() < 1.5 * strides.min()


def test_values_of_a_batch() -> None:
    schedule = cosine_schedule(10)
    picked = at(schedule.alpha_bar, torch.tensor([3, 9]), torch.zeros(2, 3, 4, 4))
    assert picked.shape == (2, 1, 1, 1)
    assert picked.dtype == torch.float32
    torch.testing.assert_close(picked.flatten(), schedule.alpha_bar[[3, 9]].float())


@pytest.mark.parametrize("alpha_bar", [[], [0.5, 0.5], [0.4, 0.5], [1.0, 0.5], [0.5, 0.0]])
def test_what_is_no_schedule(alpha_bar: list[float]) -> None:
    with pytest.raises(ConfigError, match="alpha_bar"):
        NoiseSchedule(torch.tensor(alpha_bar, dtype=torch.float64))


def test_bad_numbers_are_refused() -> None:
    for num_steps in (0, -1, 1001):
        with pytest.raises(ConfigError, match=r"num_steps: got .* expected 1 to 1000"):
            even_timesteps(1000, num_steps)
        with pytest.raises(ConfigError, match=r"num_steps: got .* expected 1 to 1000"):
            log_snr_timesteps(cosine_schedule(), num_steps)
    for build in (linear_schedule, cosine_schedule):
        with pytest.raises(ConfigError, match="num_timesteps"):
            build(0)
    with pytest.raises(ConfigError, match="above 20"):
        linear_schedule(20)
