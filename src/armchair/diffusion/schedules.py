"""Noise schedules: how much of a picture is left at each timestep, and which timesteps to visit.

    schedule = cosine_schedule(1000)
    timesteps = even_timesteps(schedule.num_timesteps, 20)   # 999 ... 0

Timestep t in 0 ... T-1 is the paper's t+1: at t = 0 a little noise is already in. The clean picture
has no timestep; its alpha_bar is 1.

Source: "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), section 4, for the linear
schedule; "Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672), section 3.2,
equation 17, for the cosine schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from armchair.core.errors import ConfigError

_COSINE_OFFSET = 0.008
_MAX_BETA = 0.999
_FIRST_LOG_SNR = -2.5


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """How much signal is left after each timestep.

    Attributes:
        alpha_bar: Float64 of shape (T,): the share of the variance that is still the picture's,
            falling, each in (0, 1).
    """

    alpha_bar: Float64[Tensor, " T"]

    def __post_init__(self) -> None:
        steps = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar])
        if not (len(steps) > 1 and bool((steps.diff() < 0).all()) and steps[-1] > 0):
            raise ConfigError(
                "alpha_bar",
                got=[round(float(a), 6) for a in self.alpha_bar[:4]],
                expected="at least one value, falling from below 1, above 0",
            )

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.alpha_bar)

    def until(self, num_timesteps: int) -> NoiseSchedule:
        """The same schedule, ended after its first `num_timesteps`."""
        return NoiseSchedule(self.alpha_bar[:num_timesteps])

    @property
    def alpha_bar_before(self) -> Float64[Tensor, " T"]:
        """alpha_bar one timestep nearer to the picture; 1 for the first."""
        return torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])

    @property
    def betas(self) -> Float64[Tensor, " T"]:
        """The variance of the noise that each timestep adds."""
        return 1 - self.alpha_bar / self.alpha_bar_before

    @property
    def log_snr(self) -> Float64[Tensor, " T"]:
        """ln(signal / noise) in amplitude: ln(sqrt(alpha_bar) / sqrt(1 - alpha_bar))."""
        return 0.5 * torch.logit(self.alpha_bar)


def linear_schedule(num_timesteps: int = 1000) -> NoiseSchedule:
    """Betas in a straight line from 1e-4 to 0.02, scaled so that any T ends at the same noise."""
    _check_num_timesteps(num_timesteps)
    scale = 1000 / num_timesteps
    betas = torch.linspace(1e-4 * scale, 0.02 * scale, num_timesteps, dtype=torch.float64)
    if betas[-1] >= 1:
        raise ConfigError(
            "num_timesteps", got=num_timesteps, expected="above 20 for a linear schedule"
        )
    return NoiseSchedule((1 - betas).cumprod(0))


def cosine_schedule(num_timesteps: int = 1000) -> NoiseSchedule:
    """alpha_bar along a squared cosine, each beta at most 0.999."""
    _check_num_timesteps(num_timesteps)
    u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    f = torch.cos((u + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * (math.pi / 2)).square()
    betas = (1 - f[1:] / f[:-1]).clamp(max=_MAX_BETA)
    return NoiseSchedule((1 - betas).cumprod(0))


def even_timesteps(num_timesteps: int, num_steps: int) -> list[int]:
    """`num_steps` timesteps from T-1 down to 0, as evenly spaced as whole numbers allow.

    Raises:
        ConfigError: There are not 1 to T of them.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ConfigError("num_steps", got=num_steps, expected=f"1 to {num_timesteps}")
    return [int(t) for t in torch.linspace(num_timesteps - 1, 0, num_steps).round()]


def log_snr_timesteps(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """T-1, and then `num_steps` - 1 timesteps down to 0 that are about even in `log_snr`.

    Those begin where there is something to see, at a signal of a twelfth of the noise; where T-1
    shows more than that, it is the first of them. On a cosine schedule, timesteps that are even in
    t make the last but one step many times as long as the others, in what a solver of the second
    order extrapolates over.

    Raises:
        ConfigError: There are not 1 to T of them.

    Source: "DPM-Solver" (arXiv 2206.00927), section 3.3, where the steps are even in log_snr.
    """
    even = even_timesteps(schedule.num_timesteps, num_steps)
    log_snr = schedule.log_snr
    last = float(log_snr[-1])
    first, num_even = max(_FIRST_LOG_SNR, last), num_steps - int(last < _FIRST_LOG_SNR)
    wanted = torch.linspace(float(log_snr[0]), first, num_even, dtype=torch.float64)
    rising = [int((log_snr - level).abs().argmin()) for level in wanted]
    rising = [*rising[: num_steps - 1], *even[:1]]
    for place in range(1, num_steps):  # no timestep twice
        rising[place] = max(rising[place], rising[place - 1] + 1)
    highest = range(schedule.num_timesteps - num_steps, schedule.num_timesteps)
    return [min(*pair) for pair in zip(rising, highest, strict=True)][::-1]


def at(
    values: Float64[Tensor, " T"], t: Int[Tensor, " B"], like: Float[Tensor, "B *S"]
) -> Float[Tensor, "B ..."]:
    """Each example's value, in the dtype of `like` and shaped to be multiplied with it."""
    picked = values.to(t.device)[t].to(like.dtype)
    return picked.view(-1, *[1] * (like.ndim - 1))


def _check_num_timesteps(num_timesteps: int) -> None:
    if num_timesteps < 1:
        raise ConfigError("num_timesteps", got=num_timesteps, expected="at least 1")
