"""Samplers: from noise to pictures, as free functions over one denoiser contract.

    x = noise(0)                                             # x_T: standard normal
    pictures = dpm_solver(denoise, x, schedule, even_timesteps(1000, 20))

Each visits the timesteps that it is given, from the noisiest on, and lands on x_0 itself. Each
checks every prediction, so that a NaN ends it where it arose.

    ddpm          the ancestral sampler, with a fixed or learned variance      arXiv 2006.11239
    analytic_dpm  the same with the variance that is best for the steps taken  arXiv 2201.06503
    ddim          deterministic at eta = 0; `invert_ddim` runs it backwards    arXiv 2010.02502
    dpm_solver    DPM-Solver++ (2M), second order                              arXiv 2211.01095
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.finite import check_finite
from armchair.core.random import torch_generator
from armchair.diffusion.process import Denoiser, Prediction, posterior
from armchair.diffusion.schedules import NoiseSchedule

Noise = Callable[[int], Tensor]
"""From the number of a draw to standard normal noise of the pictures' shape."""

OnStep = Callable[[int, int, Tensor], None]
"""Told of (steps done, steps in all, the clean pictures as they look so far)."""

Variance = Literal["small", "large", "learned"]


def keyed_noise(
    keys: Sequence[tuple[int, int]],
    shape: Sequence[int],
    *,
    purpose: str = "diffusion",
    device: torch.device | str = "cpu",
) -> Noise:
    """Noise in which each example's part is decided by its own key.

    Args:
        keys: For each example its (seed, index).
        shape: Of one example.
        purpose: What the noise is for; no two purposes share any.
        device: Where the noise is wanted; it is drawn on the CPU, the same on every machine.
    """

    def draw(number: int) -> Tensor:
        rows = [
            torch.randn(*shape, generator=torch_generator(purpose, seed, index, number))
            for seed, index in keys
        ]
        return torch.stack(rows).to(device)

    return draw


def ddpm(
    denoise: Denoiser,
    x: Float[Tensor, "B *S"],
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    noise: Noise,
    variance: Variance = "small",
    on_step: OnStep | None = None,
) -> Float[Tensor, "B *S"]:
    """Draw each step from the reverse process p(x_s | x_t) (algorithm 2 of DDPM, any stride).

    Args:
        denoise: See `Denoiser`.
        x: x_t at the first of the timesteps.
        schedule: The schedule that the denoiser was trained with.
        timesteps: Falling; see `even_timesteps`.
        noise: Draw k is for step k, from 1 on.
        variance: Of a step: the posterior's (small), the forward step's (large), or between the
            two where the denoiser says (learned; equation 15 of arXiv 2102.09672).
        on_step: See `OnStep`.

    Raises:
        ConfigError: The timesteps do not fall, or the denoiser has no learned variance.
        SamplingError: A prediction is not finite.
    """

    def of_step(prediction: Prediction, alpha_bar_t: float, alpha_bar_s: float) -> Tensor | float:
        large = 1 - alpha_bar_t / alpha_bar_s
        small = posterior(alpha_bar_t, alpha_bar_s).variance
        if variance != "learned":
            return small if variance == "small" else large
        if prediction.variance_fraction is None:
            raise ConfigError(
                "variance", got=variance, expected="small or large, as this model learned none"
            )
        fraction = prediction.variance_fraction
        return torch.exp(fraction * math.log(large) + (1 - fraction) * math.log(small))

    return _ancestral(denoise, x, schedule, timesteps, noise, of_step, on_step)


def analytic_dpm(
    denoise: Denoiser,
    x: Float[Tensor, "B *S"],
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    noise: Noise,
    mean_squared_errors: Float64[Tensor, " T"],
    on_step: OnStep | None = None,
) -> Float[Tensor, "B *S"]:
    """The ancestral sampler with the variance that is optimal for the steps taken (theorem 1).

    Args:
        denoise: See `ddpm`, as for the rest.
        x: x_t at the first of the timesteps.
        schedule: The schedule.
        timesteps: Falling.
        noise: Draw k is for step k, from 1 on.
        mean_squared_errors: For each timestep the mean square of an element of what the prediction
            misses, E ||x_0 - x_0(x_t, t)||² / d, over training data; negative where it was not
            measured, and there it is interpolated. See `mean_squared_errors`.
        on_step: See `OnStep`.

    The paper writes the variance with the mean square of the noise, which for a model that knows
    its data is the same: 1 - E ||noise(x_t, t)||² / d = alpha_bar / (1 - alpha_bar) · E ||x_0 -
    x_0(x_t, t)||² / d. At the first timesteps the left side is the difference of two numbers that
    are almost 1, times a factor of 10⁵; the right side has nothing to cancel.
    """
    if mean_squared_errors.shape != schedule.alpha_bar.shape:
        raise ConfigError(
            "mean_squared_errors",
            got=tuple(mean_squared_errors.shape),
            expected=f"{tuple(schedule.alpha_bar.shape)}, one for each timestep",
        )
    errors = _interpolated(mean_squared_errors)
    of_alpha_bar = dict(zip(schedule.alpha_bar.tolist(), errors, strict=True))

    def of_step(_: Prediction, alpha_bar_t: float, alpha_bar_s: float) -> float:
        small = posterior(alpha_bar_t, alpha_bar_s).variance
        left = max(1 - alpha_bar_s - small, 0.0) * alpha_bar_t / (1 - alpha_bar_t)
        return small + (alpha_bar_s**0.5 - left**0.5) ** 2 * of_alpha_bar[alpha_bar_t]

    return _ancestral(denoise, x, schedule, timesteps, noise, of_step, on_step)


def ddim(
    denoise: Denoiser,
    x: Float[Tensor, "B *S"],
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "B *S"]:
    """DDIM: deterministic at eta = 0, ancestral at eta = 1 (equations 12 and 16).

    Args:
        denoise: See `ddpm`, as for the rest.
        x: x_t at the first of the timesteps.
        schedule: The schedule.
        timesteps: Falling.
        eta: At least 0: how much of the posterior's deviation is drawn anew at each step. Above 1
            it is capped where all the noise of x_s is new.
        noise: Draw k is for step k, from 1 on; needed for eta above 0.
        on_step: See `OnStep`.
    """
    if not 0 <= eta < math.inf:
        raise ConfigError("eta", got=eta, expected="at least 0, and finite")
    if eta and noise is None:
        raise ConfigError("noise", got=None, expected="a source of noise, as eta is above 0")
    steps = _steps(schedule, timesteps)
    for number, (t, alpha_bar_t, alpha_bar_s) in enumerate(steps, 1):
        x_0 = _predict(denoise, x, t).x_0
        predicted = (x - alpha_bar_t**0.5 * x_0) / (1 - alpha_bar_t) ** 0.5
        variance = min(eta**2 * posterior(alpha_bar_t, alpha_bar_s).variance, 1 - alpha_bar_s)
        x = alpha_bar_s**0.5 * x_0 + (1 - alpha_bar_s - variance) ** 0.5 * predicted
        if noise is not None and variance > 0:
            x = x + variance**0.5 * noise(number)
        if on_step is not None:
            on_step(number, len(steps), x_0)
    return x


def invert_ddim(
    denoise: Denoiser,
    x_0: Float[Tensor, "B *S"],
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    refinements: int = 0,
    on_step: OnStep | None = None,
) -> Float[Tensor, "B *S"]:
    """The x_t from which `ddim` at eta = 0 draws this picture.

    A step of DDIM is undone with the noise predicted at the point that it came from, which is not
    known: the point that it went to stands in for it (section 4.3), and each refinement puts the
    answer in its place and asks again, a fixed-point iteration toward the exact inverse.

    Args:
        denoise: See `ddpm`, as for the rest.
        x_0: Clean pictures.
        schedule: The schedule.
        timesteps: Falling, as they will be given to `ddim`; visited from the last to the first.
        refinements: Further predictions for each step.
        on_step: See `OnStep`.

    Returns:
        x_t at the first of the timesteps.
    """
    if refinements < 0:
        raise ConfigError("refinements", got=refinements, expected="at least 0")
    steps = _steps(schedule, timesteps)
    x = x_0
    for number, (t, alpha_bar_t, alpha_bar_s) in enumerate(reversed(steps), 1):
        guess = x
        for _ in range(1 + refinements):
            x_0 = _predict(denoise, guess, t).x_0
            if alpha_bar_t < 0.5 and alpha_bar_s < 1:  # x_0 hardly depends on the guess
                noise = (x - alpha_bar_s**0.5 * x_0) / (1 - alpha_bar_s) ** 0.5
            else:  # the noise hardly does
                noise = (guess - alpha_bar_t**0.5 * x_0) / (1 - alpha_bar_t) ** 0.5
                x_0 = (x - (1 - alpha_bar_s) ** 0.5 * noise) / alpha_bar_s**0.5
            guess = alpha_bar_t**0.5 * x_0 + (1 - alpha_bar_t) ** 0.5 * noise
        x = guess
        if on_step is not None:
            on_step(number, len(steps), x_0)
    return x


def dpm_solver(
    denoise: Denoiser,
    x: Float[Tensor, "B *S"],
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    on_step: OnStep | None = None,
) -> Float[Tensor, "B *S"]:
    """DPM-Solver++ (2M): second order, one prediction a step (algorithm 2).

    The first step, and the last, which lands on the picture, where ln(signal / noise) is infinite,
    are of first order.

    Args:
        denoise: See `ddpm`, as for the rest.
        x: x_t at the first of the timesteps.
        schedule: The schedule.
        timesteps: Falling.
        on_step: See `OnStep`.
    """
    steps = _steps(schedule, timesteps)
    before: tuple[Tensor, float] | None = None  # the prediction one step ago, and that step's h
    for number, (t, alpha_bar_t, alpha_bar_s) in enumerate(steps, 1):
        x_0 = _predict(denoise, x, t).x_0
        if alpha_bar_s == 1:
            x = x_0
        else:
            h = _log_snr(alpha_bar_s) - _log_snr(alpha_bar_t)
            d = x_0
            if before is not None:
                x_0_before, h_before = before
                d = x_0 + (h / (2 * h_before)) * (x_0 - x_0_before)
            ratio = ((1 - alpha_bar_s) / (1 - alpha_bar_t)) ** 0.5
            x = ratio * x - alpha_bar_s**0.5 * math.expm1(-h) * d
            before = x_0, h
        if on_step is not None:
            on_step(number, len(steps), x_0)
    return x


def mean_squared_errors(
    denoise: Denoiser,
    x_0: Float[Tensor, "B *S"],
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    noise: Noise,
) -> Float64[Tensor, " T"]:
    """What `analytic_dpm` wants to know, measured on clean examples; -1 where it is not measured.

    Args:
        denoise: See `Denoiser`.
        x_0: Training examples.
        schedule: The schedule.
        timesteps: Where to measure.
        noise: Draw k is for the k-th of the timesteps, from 1 on.
    """
    measured = -torch.ones_like(schedule.alpha_bar)
    for number, (t, alpha_bar_t, _) in enumerate(_steps(schedule, timesteps), 1):
        x_t = alpha_bar_t**0.5 * x_0 + (1 - alpha_bar_t) ** 0.5 * noise(number)
        measured[t] = (x_0 - _predict(denoise, x_t, t).x_0).double().square().mean()
    return measured


def _interpolated(measured: Float64[Tensor, " T"]) -> list[float]:
    """What was measured, and a straight line between where it was."""
    known = np.flatnonzero(measured.numpy() >= 0)
    if len(known) == 0:
        hint = "measure them, or take another sampler"
        got, expected = "none measured", "the prior's errors"
        raise ConfigError("mean_squared_errors", got=got, expected=expected, hint=hint)
    values = measured.numpy()[known]
    return np.interp(np.arange(len(measured)), known, values).tolist()


def _ancestral(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    noise: Noise,
    variance_of: Callable[[Prediction, float, float], Tensor | float],
    on_step: OnStep | None,
) -> Tensor:
    steps = _steps(schedule, timesteps)
    for number, (t, alpha_bar_t, alpha_bar_s) in enumerate(steps, 1):
        prediction = _predict(denoise, x, t)
        weights = posterior(alpha_bar_t, alpha_bar_s)
        x = weights.x_0_weight * prediction.x_0 + weights.x_t_weight * x
        if alpha_bar_s < 1:  # the last step lands on the mean
            x = x + variance_of(prediction, alpha_bar_t, alpha_bar_s) ** 0.5 * noise(number)
        if on_step is not None:
            on_step(number, len(steps), prediction.x_0)
    return x


def _steps(schedule: NoiseSchedule, timesteps: Sequence[int]) -> list[tuple[int, float, float]]:
    """Each timestep t with its alpha_bar and that of the point after it, which is 1 at last."""
    visited = list(timesteps)
    within = all(0 <= t < schedule.num_timesteps for t in visited)
    if not visited or not within or any(s >= t for t, s in pairwise(visited)):
        raise ConfigError(
            "timesteps",
            got=visited[:6],
            expected=f"at least one, falling, within 0 to {schedule.num_timesteps - 1}",
        )
    levels = [*schedule.alpha_bar[visited].tolist(), 1.0]
    return list(zip(visited, levels, levels[1:], strict=False))


def _predict(denoise: Denoiser, x: Tensor, t: int) -> Prediction:
    prediction = denoise(x, torch.full((len(x),), t, device=x.device))
    parts = {"x_0": prediction.x_0, "the variance": prediction.variance_fraction}
    for name, value in parts.items():
        if value is not None:
            check_finite(value, f"the prediction of {name} at timestep {t}")
    return prediction


def _log_snr(alpha_bar: float) -> float:
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))
