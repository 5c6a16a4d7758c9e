"""The samplers on Gaussian data, whose exact denoiser is known in closed form.

For x_0 ~ N(m, s²) the expected clean value is (m (1 - a) + sqrt(a) s² x_t) / (a s² + 1 - a), with a
for alpha_bar.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from armchair.core.errors import ConfigError, SamplingError
from armchair.diffusion.process import Denoiser, Prediction
from armchair.diffusion.samplers import (
    analytic_dpm,
    ddim,
    ddpm,
    dpm_solver,
    invert_ddim,
    keyed_noise,
    mean_squared_errors,
)
from armchair.diffusion.schedules import (
    NoiseSchedule,
    cosine_schedule,
    even_timesteps,
    log_snr_timesteps,
)

MEAN, DEVIATION = 0.4, 0.3
COSINE = cosine_schedule(1000)
# Even in ln(signal / noise), from almost none to almost no noise: for orders of convergence.
EVEN = NoiseSchedule(torch.sigmoid(torch.linspace(16, -10, 1281, dtype=torch.float64)))


def gaussian(schedule: NoiseSchedule) -> Denoiser:
    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        a = schedule.alpha_bar[t].to(x_t.dtype).view(-1, *[1] * (x_t.ndim - 1))
        variance = a * DEVIATION**2 + 1 - a
        x_0 = (MEAN * (1 - a) + a.sqrt() * DEVIATION**2 * x_t) / variance
        return Prediction(x_0, torch.full_like(x_t, 0.5))

    return denoise


def exact(schedule: NoiseSchedule, z: Tensor) -> Tensor:
    """Where the probability flow takes x_T = sqrt(a) m + sqrt(a s² + 1 - a) z: to m + s z."""
    return MEAN + DEVIATION * z


def start(schedule: NoiseSchedule, z: Tensor) -> Tensor:
    a = schedule.alpha_bar[-1].item()
    return a**0.5 * MEAN + (a * DEVIATION**2 + 1 - a) ** 0.5 * z


def fresh(shape: tuple[int, ...]) -> Callable[[int], Tensor]:
    return lambda number: torch.randn(
        shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64
    )


SHAPE = (8, 2500)
STOCHASTIC: dict[str, Any] = {
    "ddpm, small": partial(ddpm, variance="small"),
    "ddpm, large": partial(ddpm, variance="large"),
    "ddpm, learned": partial(ddpm, variance="learned"),
    "ddim, eta 1": partial(ddim, eta=1.0),
    "ddim, eta 0.5": partial(ddim, eta=0.5),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_reproduce_the_data(name: str) -> None:
    timesteps = even_timesteps(1000, 1000)
    noise = fresh(SHAPE)
    x = STOCHASTIC[name](gaussian(COSINE), noise(0), COSINE, timesteps, noise=noise)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(DEVIATION, rel=0.02)


@pytest.mark.parametrize("num_steps", [3, 10, 50])
def test_the_analytic_variance_is_exact_at_any_stride(num_steps: int) -> None:
    """For Gaussian data each reverse step is a normal, so nothing is lost but the last variance."""
    timesteps = even_timesteps(1000, num_steps)
    noise, a = fresh(SHAPE), COSINE.alpha_bar
    errors = squared_errors(a)
    x = analytic_dpm(
        gaussian(COSINE), noise(0), COSINE, timesteps, noise=noise, mean_squared_errors=errors
    )
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(DEVIATION, rel=0.02)
    plain = ddpm(gaussian(COSINE), noise(0), COSINE, timesteps, noise=noise, variance="small")
    assert abs(plain.std().item() - DEVIATION) > abs(x.std().item() - DEVIATION)


def squared_errors(a: Tensor) -> Tensor:
    """The variance of x_0 given x_t."""
    return DEVIATION**2 * (1 - a) / (a * DEVIATION**2 + 1 - a)


def test_analytic_steps_do_not_blow_up_where_all_is_noise() -> None:
    """Measured in float32 on few numbers; as a difference of squares it added a variance of 500."""
    timesteps, noise = even_timesteps(1000, 64), fresh(SHAPE)
    x_0 = (MEAN + DEVIATION * fresh((4, 10))(1000)).float()
    for seed in range(3):
        measure = lambda k, seed=seed: fresh((4, 10))(k + 100 * seed).float()  # noqa: E731
        errors = mean_squared_errors(gaussian(COSINE), x_0, COSINE, timesteps, noise=measure)
        largest: list[float] = []

        def denoise(x_t: Tensor, t: Tensor, seen: list[float] = largest) -> Prediction:
            seen.append(float(x_t.abs().max()))
            return gaussian(COSINE)(x_t, t)

        errors = errors.half().double()
        analytic_dpm(denoise, noise(0), COSINE, timesteps, noise=noise, mean_squared_errors=errors)
        assert max(largest) < 6


def test_between_what_was_measured_errors_are_interpolated() -> None:
    timesteps, noise = even_timesteps(1000, 10), fresh(SHAPE)
    measured = -torch.ones_like(COSINE.alpha_bar)
    places = even_timesteps(1000, 100)
    measured[places] = squared_errors(COSINE.alpha_bar[places])
    drawn = [
        analytic_dpm(
            gaussian(COSINE), noise(0), COSINE, timesteps, noise=noise, mean_squared_errors=errors
        )
        for errors in (measured, squared_errors(COSINE.alpha_bar))
    ]
    torch.testing.assert_close(*drawn, atol=0.01, rtol=0)
    unknown = -torch.ones_like(measured)
    with pytest.raises(ConfigError, match="none measured"):
        analytic_dpm(
            gaussian(COSINE), noise(0), COSINE, timesteps, noise=noise, mean_squared_errors=unknown
        )


@pytest.mark.parametrize(("sampler", "num_steps"), [(dpm_solver, 7), (dpm_solver, 20)])
@pytest.mark.parametrize("deviation", [0.3, 0.05])
def test_few_steps_draw_detail_with_most_of_its_contrast(
    sampler: Any, num_steps: int, deviation: float
) -> None:
    """What timesteps even in t draw with as little as two thirds, or a fifth too much."""

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        a = COSINE.alpha_bar[t].to(x_t.dtype).view(-1, 1)
        return Prediction(a.sqrt() * deviation**2 * x_t / (a * deviation**2 + 1 - a))

    x = sampler(denoise, fresh((1, 20_000))(0), COSINE, log_snr_timesteps(COSINE, num_steps))
    assert 0.88 < float(x.std()) / deviation < 1.05


def test_what_the_prediction_misses_is_measured() -> None:
    timesteps = [999, 500, 100, 3]
    x_0 = MEAN + DEVIATION * fresh(SHAPE)(1000)
    found = mean_squared_errors(gaussian(COSINE), x_0, COSINE, timesteps, noise=fresh(SHAPE))
    expected = squared_errors(COSINE.alpha_bar[timesteps])
    torch.testing.assert_close(found[timesteps], expected, rtol=0.03, atol=0)
    assert found[700] == -1  # not measured


def deterministic(name: str) -> Any:
    return {"ddim": ddim, "dpm_solver": dpm_solver}[name]


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver", 2)])
def test_orders_of_convergence(name: str, order: int) -> None:
    """Halving the stride divides the error by 2 to the order."""
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    errors = []
    for intervals in (20, 40, 80, 160):
        timesteps = even_timesteps(1281, intervals + 1)
        x = deterministic(name)(gaussian(EVEN), start(EVEN, z), EVEN, timesteps)
        errors.append((x - exact(EVEN, z)).abs().max().item())
    rates = [math.log2(one / two) for one, two in pairwise(errors)]
    assert rates[-1] == pytest.approx(order, abs=0.25), (errors, rates)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_weak_orders_of_convergence(name: str) -> None:
    """Of the law of what is drawn, which is a normal: halving the stride halves its errors.

    What is drawn is linear in the start and in the noise of each step: a row for each is its share.
    """
    errors = []
    for intervals in (20, 40, 80, 160):
        rows = torch.eye(intervals + 2, dtype=torch.float64)[:, :, None]
        timesteps = even_timesteps(1281, intervals + 1)
        noise = lambda number, rows=rows: rows[:, number]  # noqa: E731
        x = STOCHASTIC[name](gaussian(EVEN), start(EVEN, rows[:, 0]), EVEN, timesteps, noise=noise)
        mean = x[-1]  # the row without noise: the last step draws none
        deviation = (x - mean).square().sum().sqrt()
        errors.append(((mean - MEAN).abs() + (deviation - DEVIATION).abs()).item())
    rates = [math.log2(one / two) for one, two in pairwise(errors)]
    assert rates[-1] == pytest.approx(1, abs=0.25), (errors, rates)


def test_the_second_order_is_worth_it() -> None:
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    timesteps = even_timesteps(1281, 21)
    wrong = {
        name: (
            deterministic(name)(gaussian(EVEN), start(EVEN, z), EVEN, timesteps) - exact(EVEN, z)
        )
        .abs()
        .max()
        .item()
        for name in ("ddim", "dpm_solver")
    }
    assert wrong["dpm_solver"] < 0.5 * wrong["ddim"]


@pytest.mark.parametrize("name", [*STOCHASTIC, "ddim", "dpm_solver", "analytic"])
def test_samplers_start_at_the_end_and_land_on_the_picture(name: str) -> None:
    """Rivals start below T-1, or leave noise in the last step."""
    visited = []

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        assert bool((t == t[0]).all())
        visited.append(int(t[0]))
        return Prediction(torch.full_like(x_t, 0.25), torch.zeros_like(x_t))

    noise = fresh((2, 3))
    analytic = partial(analytic_dpm, mean_squared_errors=torch.ones_like(COSINE.alpha_bar))
    sampler = {**STOCHASTIC, "analytic": analytic}.get(name)
    for num_steps in (1, 2, 7):
        visited.clear()
        timesteps, seen = even_timesteps(1000, num_steps), []
        on_step = lambda done, total, x_0: seen.append((done, total))  # noqa: E731, B023
        if sampler is None:
            x = deterministic(name)(denoise, noise(0), COSINE, timesteps, on_step=on_step)
        else:
            x = sampler(denoise, noise(0), COSINE, timesteps, noise=noise, on_step=on_step)
        assert visited == timesteps
        assert visited[0] == 999
        assert seen == [(n, num_steps) for n in range(1, num_steps + 1)]
        torch.testing.assert_close(x, torch.full_like(x, 0.25))


def test_ddim_inverted_comes_back() -> None:
    """The round trip is exact but for the fixed point's remainder."""
    x_0 = (MEAN + DEVIATION * fresh((2, 50))(1)).clamp(-1, 1)
    errors = []
    for num_steps, refinements in ((20, 0), (100, 0), (20, 8)):
        timesteps = even_timesteps(1000, num_steps)
        x_t = invert_ddim(gaussian(COSINE), x_0, COSINE, timesteps, refinements=refinements)
        again = ddim(gaussian(COSINE), x_t, COSINE, timesteps)
        errors.append((again - x_0).abs().max().item())
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 1e-3
    assert errors[2] < 0.1 * errors[0]


def test_pictures_do_not_depend_on_their_batch() -> None:
    keys = [(0, 0), (0, 1), (7, 3)]
    timesteps = even_timesteps(1000, 5)

    def drawn(keys: list[tuple[int, int]]) -> Tensor:
        noise = keyed_noise(keys, (3, 4, 4))
        return ddpm(gaussian(COSINE), noise(0), COSINE, timesteps, noise=noise)

    together = drawn(keys)
    for number, key in enumerate(keys):
        assert torch.equal(drawn([key])[0], together[number])
    assert not torch.equal(together[0], together[1])
    noise = keyed_noise(keys, (3, 4, 4))
    assert not torch.equal(noise(0), noise(1))


def test_a_value_that_is_not_finite_ends_it_by_name() -> None:
    def broken(x_t: Tensor, t: Tensor) -> Prediction:
        return Prediction(x_t / (0 if int(t[0]) < 500 else 1) - x_t)

    noise = fresh((1, 4))
    for sampler in (ddim, dpm_solver):
        with pytest.raises(SamplingError, match=r"x_0 at timestep 0.*not finite"):
            sampler(broken, noise(0), COSINE, even_timesteps(1000, 2))
    with pytest.raises(SamplingError, match="timestep 0"):
        ddpm(broken, noise(0), COSINE, even_timesteps(1000, 2), noise=noise)


@pytest.mark.parametrize("timesteps", [[], [3, 3], [1, 2], [1000], [5, -1]])
def test_timesteps_that_do_not_fall_are_refused(timesteps: list[int]) -> None:
    with pytest.raises(ConfigError, match="timesteps: got"):
        ddim(gaussian(COSINE), torch.zeros(1, 2), COSINE, timesteps)


def test_settings_out_of_range_are_refused() -> None:
    x, timesteps, noise = torch.zeros(1, 2), [999, 0], fresh((1, 2))
    for eta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="eta"):
            ddim(gaussian(COSINE), x, COSINE, timesteps, eta=eta, noise=noise)
    with pytest.raises(ConfigError, match="noise: got None"):
        ddim(gaussian(COSINE), x, COSINE, timesteps, eta=1.0)
    with pytest.raises(ConfigError, match="learned none"):
        ddpm(lambda x, t: Prediction(x), x, COSINE, timesteps, noise=noise, variance="learned")
    short = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ConfigError, match="mean_squared_errors"):
        analytic_dpm(gaussian(COSINE), x, COSINE, timesteps, noise=noise, mean_squared_errors=short)
    with pytest.raises(ConfigError, match="refinements"):
        invert_ddim(gaussian(COSINE), x, COSINE, timesteps, refinements=-1)


def test_two_purposes_share_no_noise() -> None:
    keys = [(0, 0)]
    one, other = (keyed_noise(keys, (50,), purpose=purpose)(0) for purpose in ("a", "b"))
    assert not (one == other).any()
