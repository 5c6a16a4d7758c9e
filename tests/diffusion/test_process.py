from typing import get_args

import pytest
import torch
from torch import Tensor

from armchair.core.errors import ConfigError, UnknownNameError
from armchair.diffusion.process import (
    Parameterisation,
    ProcessConfig,
    add_noise,
    build_schedule,
    denoiser_of,
    draw_timesteps,
    posterior,
    target,
    to_x_0,
)
from armchair.diffusion.schedules import cosine_schedule, linear_schedule

SCHEDULE = cosine_schedule(100)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(5, 3, 4, 4, generator=generator) * 2 - 1
    noise = torch.randn(5, 3, 4, 4, generator=generator)
    return x_0, torch.tensor([0, 1, 50, 80, 95]), noise


def test_timesteps_of_a_batch_are_evenly_spread_and_each_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_timesteps(100, 20, generator, "cpu") for _ in range(600)]
    for t in drawn:
        assert (t // 5).bincount(minlength=20).eq(1).all()  # one in each twentieth
    counts = torch.stack(drawn)[:, 7].bincount(minlength=100)
    assert len(counts) == 100
    assert (counts - 6).square().sum() / 6 < 148  # chi squared of 99 degrees at 0.1%
    assert len({int(t[0]) for t in drawn}) > 90


def test_more_examples_than_timesteps_take_each_as_often() -> None:
    t = draw_timesteps(4, 40, torch.Generator().manual_seed(1), "cpu")
    assert t.bincount().tolist() == [10, 10, 10, 10]


def test_logit_normal_timesteps() -> None:
    """logit(t / T) is standard normal, and a batch has one example in each part of its mass."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [draw_timesteps(1000, 20, generator, "cpu", logit_normal=1.0) for _ in range(600)]
    )
    assert drawn.min() >= 0
    assert drawn.max() < 1000
    logits = ((drawn + 0.5) / 1000).logit()
    parts = (20 * torch.special.ndtr(logits)).long()
    one_each = torch.stack([row.bincount(minlength=20) for row in parts])
    assert (one_each - 1).abs().sum(dim=1).float().mean() < 1  # but for the rounding of t
    assert abs(logits.mean()) < 0.01
    assert abs(logits.std() - 1) < 0.01


def test_a_share_of_timesteps_is_logit_normal() -> None:
    t = draw_timesteps(1000, 16, torch.Generator().manual_seed(2), "cpu", logit_normal=0.5)
    assert (t[8:] // 125).bincount(minlength=8).tolist() == [1] * 8
    parts = (8 * torch.special.ndtr(((t[:8] + 0.5) / 1000).logit())).long()
    assert parts.bincount(minlength=8).tolist() == [1] * 8


@pytest.mark.parametrize("parameterisation", get_args(Parameterisation))
def test_each_target_leads_back_to_the_picture(parameterisation: Parameterisation) -> None:
    x_0, t, noise = batch()
    x_t = add_noise(SCHEDULE, x_0, t, noise)
    wanted = target(SCHEDULE, x_0, t, noise, parameterisation)
    found = to_x_0(SCHEDULE, x_t, t, wanted, parameterisation)
    torch.testing.assert_close(found, x_0, atol=1e-4, rtol=1e-4)


def test_the_forward_process_in_numbers() -> None:
    x_0, t, noise = batch()
    x_t = add_noise(SCHEDULE, x_0, t, noise)
    a = SCHEDULE.alpha_bar[50].item()
    torch.testing.assert_close(x_t[2], a**0.5 * x_0[2] + (1 - a) ** 0.5 * noise[2])
    v = target(SCHEDULE, x_0, t, noise, "v")
    torch.testing.assert_close(v[2], a**0.5 * noise[2] - (1 - a) ** 0.5 * x_0[2])


def test_the_posterior_is_bayes_rule() -> None:
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0): precisions add, means are weighted by them."""
    for t, s in ((99, 98), (50, 20), (3, 0)):
        a_t, a_s = SCHEDULE.alpha_bar[[t, s]].tolist()
        alpha, x_0, x_t = a_t / a_s, 0.3, -0.7
        precision = alpha / (1 - alpha) + 1 / (1 - a_s)
        mean = (alpha**0.5 * x_t / (1 - alpha) + a_s**0.5 * x_0 / (1 - a_s)) / precision
        found = posterior(a_t, a_s)
        assert found.variance == pytest.approx(1 / precision)
        assert found.x_0_weight * x_0 + found.x_t_weight * x_t == pytest.approx(mean)


def test_the_posterior_at_the_picture_is_the_picture() -> None:
    found = posterior(0.9, 1.0)
    assert found.x_0_weight == pytest.approx(1)
    assert found.x_t_weight == found.variance == 0


def test_the_posterior_of_neighbours_is_the_papers() -> None:
    """Equation 7: beta (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t), and the means beside it."""
    found = posterior(SCHEDULE.alpha_bar[1:], SCHEDULE.alpha_bar[:-1])
    beta = SCHEDULE.betas[1:]
    before, after = SCHEDULE.alpha_bar[:-1], SCHEDULE.alpha_bar[1:]
    torch.testing.assert_close(found.variance, beta * (1 - before) / (1 - after))
    torch.testing.assert_close(found.x_0_weight, before.sqrt() * beta / (1 - after))


def test_a_denoiser_of_a_network() -> None:
    x_0, t, noise = batch()
    x_t = add_noise(SCHEDULE, x_0, t, noise)
    plain = denoiser_of(SCHEDULE, lambda x, t: noise, "noise")(x_t, t)
    torch.testing.assert_close(plain.x_0, x_0, atol=1e-4, rtol=1e-4)
    assert plain.variance_fraction is None

    sure = torch.full_like(noise, -1.0)
    network = lambda x, t: torch.cat([noise, sure], dim=1)  # noqa: E731
    learned = denoiser_of(SCHEDULE, network, "noise", learned_variance=True)(x_t, t)
    assert learned.variance_fraction is not None
    assert torch.equal(learned.variance_fraction, torch.zeros_like(noise))
    assert torch.equal(learned.x_0, plain.x_0)


def test_a_process_has_its_schedule() -> None:
    for name, schedule in (("linear", linear_schedule), ("cosine", cosine_schedule)):
        found = build_schedule(ProcessConfig(schedule=name, num_timesteps=50))
        assert torch.equal(found.alpha_bar, schedule(50).alpha_bar)


def test_a_process_has_timesteps() -> None:
    with pytest.raises(ConfigError, match="num_timesteps: got 0, expected at least 1"):
        ProcessConfig(num_timesteps=0)
    with pytest.raises(ConfigError, match="num_timesteps: got 20, expected above 20 for a linear"):
        ProcessConfig(schedule="linear", num_timesteps=20)


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [("schedule", "cosin", "cosine"), ("parameterisation", "x0", "x_0")],
)
def test_unknown_names_are_refused(field: str, value: str, meant: str) -> None:
    config = ProcessConfig()
    object.__setattr__(config, field, value)  # past the tests' own check of types
    with pytest.raises(UnknownNameError, match=f"(?s){field}: got '{value}'.*{meant}"):
        config.__post_init__()
