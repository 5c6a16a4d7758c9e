"""Another implementation's schedules and steps: those of diffusers."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from armchair.diffusion.process import Prediction
from armchair.diffusion.samplers import ddim, ddpm, dpm_solver
from armchair.diffusion.schedules import cosine_schedule, linear_schedule

SCHEDULE = linear_schedule(1000)
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
STRIDE = 50
TIMESTEPS = list(range(999, 0, -STRIDE))  # what they call trailing
NUM_STEPS = len(TIMESTEPS)


def start() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def noise_in(x_t: Tensor, t: Tensor | int) -> Tensor:
    """A network's stand-in: smooth, not linear, and another at each timestep."""
    share = torch.as_tensor(t, dtype=torch.float32).view(-1, 1, 1, 1) / 1000
    return torch.sin(2 * x_t + share) * (1 - share) + share * x_t


def denoise(x_t: Tensor, t: Tensor) -> Prediction:
    alpha_bar = SCHEDULE.alpha_bar[t].float().view(-1, 1, 1, 1)
    return Prediction((x_t - (1 - alpha_bar).sqrt() * noise_in(x_t, t)) / alpha_bar.sqrt(), None)


def theirs(scheduler: Any, **of_step: Any) -> Tensor:
    x = start()
    for t in scheduler.timesteps:
        x = scheduler.step(noise_in(x, int(t)), t, x, **of_step).prev_sample
    return x


@pytest.mark.parametrize(
    ("name", "ours"), [("linear", SCHEDULE), ("squaredcos_cap_v2", cosine_schedule(1000))]
)
def test_the_schedules_are_the_same(name: str, ours: Any) -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule=name, **BETAS)
    expected = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(ours.alpha_bar, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_takes_the_same_steps(eta: float) -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **BETAS)
    scheduler.set_timesteps(NUM_STEPS)
    assert scheduler.timesteps.tolist() == TIMESTEPS
    expected = theirs(scheduler, eta=eta, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    got = ddim(
        denoise,
        start(),
        SCHEDULE,
        TIMESTEPS,
        eta=eta,
        noise=lambda _: torch.randn(start().shape, generator=generator),
    )
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_the_ancestral_sampler_takes_the_same_steps() -> None:
    scheduler = diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="trailing", **BETAS)
    scheduler.set_timesteps(NUM_STEPS)
    expected = theirs(scheduler, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    got = ddpm(
        denoise,
        start(),
        SCHEDULE,
        TIMESTEPS,
        noise=lambda _: torch.randn(start().shape, generator=generator),
    )
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs
@pytest.mark.parametrize("timesteps", [TIMESTEPS, [999, 700, 500, 350, 200, 90, 30, 5, 0]])
def test_the_second_order_solver_takes_the_same_steps(timesteps: list[int]) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **BETAS
    )
    scheduler.set_timesteps(timesteps=timesteps)
    got = dpm_solver(denoise, start(), SCHEDULE, timesteps)
    torch.testing.assert_close(got, theirs(scheduler), rtol=1e-3, atol=1e-3)
