"""The forward process, its posterior, and the three things that a network can predict.

    x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise                            (q(x_t | x_0))
    v   = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0

Whatever the network predicts is turned into a prediction of x_0; the samplers know nothing else.

Source: "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), equations 4, 6 and 7;
"Progressive Distillation for Fast Sampling of Diffusion Models" (arXiv 2202.00512), section 4, for
v; "Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672), equation 15, for the
learned variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.core.errors import UnknownNameError
from armchair.diffusion.schedules import NoiseSchedule, at, cosine_schedule, linear_schedule

Parameterisation = Literal["noise", "x_0", "v"]
_PARAMETERISATIONS: tuple[str, ...] = get_args(Parameterisation)
_SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule}


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """The process that a model is trained to reverse, and what it says of it.

    Attributes:
        schedule: "linear" or "cosine".
        num_timesteps: T, at least 1; above 20 for the linear schedule.
        parameterisation: What the model predicts.
        learned_variance: Whether it also predicts the variance of the reverse step.
    """

    schedule: Literal["linear", "cosine"] = "cosine"
    num_timesteps: int = 1000
    parameterisation: Parameterisation = "noise"
    learned_variance: bool = False

    def __post_init__(self) -> None:
        for name, known in (("schedule", _SCHEDULES), ("parameterisation", _PARAMETERISATIONS)):
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        with torch.device("cpu"):  # models may be built on the meta device
            build_schedule(self)  # now, as it may refuse the number of timesteps


def build_schedule(config: ProcessConfig) -> NoiseSchedule:
    """The noise schedule of a process."""
    return _SCHEDULES[config.schedule](config.num_timesteps)


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of a noisy batch.

    Attributes:
        x_0: The expected clean pictures.
        variance_fraction: For each element where, in logarithms, the variance of the reverse step
            lies between its smallest (0) and its largest (1); None where it is not learned.
    """

    x_0: Float[Tensor, "B *S"]
    variance_fraction: Float[Tensor, "B *S"] | None = None


Denoiser = Callable[[Tensor, Tensor], Prediction]
"""From x_t (B ...) and timesteps t (B) to a prediction. All samplers ask one of these."""


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(x_0_weight · x_0 + x_t_weight · x_t, variance)."""

    x_0_weight: Any
    x_t_weight: Any
    variance: Any


def draw_timesteps(
    num_timesteps: int,
    count: int,
    generator: torch.Generator,
    device: torch.device | str,
    *,
    logit_normal: float = 0.0,
) -> Int[Tensor, " N"]:
    """Timesteps for the examples of a batch, evenly spread over what they are drawn from.

    One is drawn, and the others follow it at equal distances, around and around: a batch that has
    some of every noise says more of the loss than one that is left to chance.

    Args:
        num_timesteps: T.
        count: Examples N.
        generator: Decides the one, on that device.
        device: Where they are made.
        logit_normal: Share of them, the first ones, of which the logit of t/T is standard normal:
            little of the least noise, where nothing is left to see, and of the most. The rest are
            uniform.

    Returns:
        Numbers in [0, T).

    Source: "Variational Diffusion Models" (arXiv 2107.00630), appendix I.1; "Scaling Rectified
    Flow Transformers" (arXiv 2403.03206), section 3.1, for the logit-normal density.
    """
    start = torch.rand((), generator=generator, device=device)
    num_normal = round(logit_normal * count)
    parts = []
    for size in (num_normal, count - num_normal):
        parts.append((start + torch.arange(size, device=device) / max(size, 1)) % 1)
    places = torch.cat([torch.special.ndtri(parts[0]).sigmoid(), parts[1]])
    return (num_timesteps * places).long().clamp(max=num_timesteps - 1)


def add_noise(
    schedule: NoiseSchedule,
    x_0: Float[Tensor, "B *S"],
    t: Int[Tensor, " B"],
    noise: Float[Tensor, "B *S"],
) -> Float[Tensor, "B *S"]:
    """Draw x_t from q(x_t | x_0) with the given standard normal noise (equation 4)."""
    alpha_bar = at(schedule.alpha_bar, t, x_0)
    return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise


def target(
    schedule: NoiseSchedule,
    x_0: Float[Tensor, "B *S"],
    t: Int[Tensor, " B"],
    noise: Float[Tensor, "B *S"],
    parameterisation: Parameterisation,
) -> Float[Tensor, "B *S"]:
    """What a network with this parameterisation should predict of `add_noise(...)`."""
    if parameterisation == "noise":
        return noise
    if parameterisation == "x_0":
        return x_0
    alpha_bar = at(schedule.alpha_bar, t, x_0)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0


def to_x_0(
    schedule: NoiseSchedule,
    x_t: Float[Tensor, "B *S"],
    t: Int[Tensor, " B"],
    output: Float[Tensor, "B *S"],
    parameterisation: Parameterisation,
) -> Float[Tensor, "B *S"]:
    """The clean picture that a network's output speaks of."""
    if parameterisation == "x_0":
        return output
    alpha_bar = at(schedule.alpha_bar, t, x_t)
    if parameterisation == "noise":
        return (x_t - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt()
    return alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * output


def posterior(alpha_bar_t: Any, alpha_bar_s: Any) -> Posterior:
    """q(x_s | x_t, x_0) for any s nearer to the picture than t (equations 6 and 7).

    Args:
        alpha_bar_t: A float, or a tensor that broadcasts with the pictures.
        alpha_bar_s: The same for s; 1 for the picture itself.
    """
    alpha = alpha_bar_t / alpha_bar_s
    beta = 1 - alpha
    return Posterior(
        x_0_weight=alpha_bar_s**0.5 * beta / (1 - alpha_bar_t),
        x_t_weight=alpha**0.5 * (1 - alpha_bar_s) / (1 - alpha_bar_t),
        variance=beta * (1 - alpha_bar_s) / (1 - alpha_bar_t),
    )


def denoiser_of(
    schedule: NoiseSchedule,
    network: Callable[[Tensor, Tensor], Tensor],
    parameterisation: Parameterisation,
    *,
    learned_variance: bool = False,
) -> Denoiser:
    """A denoiser from a network.

    Args:
        schedule: The schedule that the network was trained with.
        network: From x_t (B C ...) and t (B) to its output (B C ...), or (B 2C ...) with a learned
            variance: the second half in [-1, 1] where the network is sure of itself.
        parameterisation: What the output speaks of.
        learned_variance: Whether there is a second half.
    """

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        output, fraction = network(x_t, t).to(x_t.dtype), None
        if learned_variance:
            output, raw = output.chunk(2, dim=1)
            fraction = (raw + 1) / 2
        return Prediction(to_x_0(schedule, x_t, t, output, parameterisation), fraction)

    return denoise
