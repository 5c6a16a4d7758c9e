"""Drawing with diffusion models: embeddings with a prior, pictures with a U-Net.

    embeddings = sample_embeddings(prior, text, text_embeddings, keys=keys, settings=settings)
    images = sample_images(decoder, {"text": text, "embedding": embeddings}, keys=keys, ...)
    images = sample_images(upsampler, {"low": images}, keys=keys, settings=settings)

**The same picture in any batch.** All noise of picture k of seed S is keyed by (S, k), by what it
is for, and by the step. What is left is rounding, in the seventh digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import Condition, guide, threshold
from armchair.diffusion.process import Denoiser
from armchair.diffusion.samplers import (
    Noise,
    OnStep,
    analytic_dpm,
    ddim,
    ddpm,
    dpm_solver,
    keyed_noise,
    mean_squared_noise,
)
from armchair.diffusion.schedules import even_timesteps
from armchair.models.diffusion_model import DiffusionModel
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.unet import UNet
from armchair.sampling.evaluating import evaluating

Sampler = Literal["ddpm", "analytic_dpm", "ddim", "dpm_solver"]


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling:
    """How a diffusion model draws.

    Attributes:
        num_steps: Steps, from 1 to the timesteps of the model's process.
        sampler: "ddpm" draws anew at each step, with the learned variance where there is one;
            "analytic_dpm" too, with the best variance for the steps, in a prior for which
            `measure_noise` has found it; "ddim" and "dpm_solver" (second order) draw nothing but
            the start.
        guidance_scale: At least 1, which is no guidance and costs half.
        percentile: None to clip pictures to their range; in (0, 1) to scale them back to it from
            this percentile of their magnitudes, which keeps strong guidance from saturating.
    """

    num_steps: int
    sampler: Sampler = "dpm_solver"
    guidance_scale: float = 1.0
    percentile: float | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError("num_steps", got=self.num_steps, expected="at least 1")
        if not 1 <= self.guidance_scale < float("inf"):
            raise ConfigError(
                "guidance_scale",
                got=self.guidance_scale,
                expected="at least 1, and finite",
                hint="1 is no guidance",
            )
        if self.percentile is not None and not 0 < self.percentile < 1:
            raise ConfigError("percentile", got=self.percentile, expected="in (0, 1)")


def sample_images(
    model: UNet,
    condition: Condition,
    *,
    keys: Sequence[tuple[int, int]],
    settings: DiffusionSampling,
    on_step: OnStep | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """Draw one picture for each key.

    Args:
        model: A decoder, or an upsampler; dropout is off while it draws.
        condition: What `UNet.encode` wants, a row for each key.
        keys: For each picture its (seed, index), which alone decide its noise.
        settings: How to draw.
        on_step: Told of (steps done, steps in all, the pictures as they look so far).

    Returns:
        Pictures in [-1, 1], on the model's device; of an upsampler as many times larger than the
        given ones as its config says.

    Raises:
        ConfigError: The inputs do not fit the model or each other.
        SamplingError: A prediction is not finite.
    """
    config = model.config
    if settings.guidance_scale != 1 and not {"text", "embedding"} & set(config.condition_names):
        expected = "1, as this model has no caption or embedding to follow"
        raise ConfigError("guidance_scale", got=settings.guidance_scale, expected=expected)
    if settings.sampler == "analytic_dpm":
        raise ConfigError("sampler", got=settings.sampler, expected="another one for pictures")
    size = config.image_size
    if config.low_size is not None and "low" in condition:
        size = condition["low"].shape[-1] * size // config.low_size
    noise = keyed_noise(keys, (3, size, size), purpose=f"pictures {size}", device=model.device)
    with evaluating(model), torch.no_grad():
        denoise = _guided(model, condition, len(keys), settings.guidance_scale)
        denoise = threshold(denoise, percentile=settings.percentile)
        return _run(model, denoise, noise, settings, on_step)


def sample_embeddings(
    prior: DiffusionPrior,
    text: Int64[Tensor, "B T"],
    text_embeddings: Float[Tensor, "B E"],
    *,
    keys: Sequence[tuple[int, int]],
    settings: DiffusionSampling,
    candidates: int = 2,
) -> Float[Tensor, "B E"]:
    """Draw a picture embedding for each caption: of some candidates the one that fits it best.

    Args:
        prior: The prior; dropout is off while it draws.
        text: Tokens padded to their length.
        text_embeddings: CLIP's of the same captions, unit vectors.
        keys: For each caption its (seed, index), which alone decide its noise.
        settings: How to draw; embeddings have no range to keep, so no percentile.
        candidates: How many to draw; the one with the largest dot product with its caption's
            embedding is kept. The paper draws 2.

    Returns:
        Unit vectors, on the model's device.

    Raises:
        ConfigError: The inputs do not fit the model or each other.
        SamplingError: A prediction is not finite.

    Source: DALL·E 2, section 2.2.
    """
    if candidates < 1:
        raise ConfigError("candidates", got=candidates, expected="at least 1")
    if settings.percentile is not None:
        raise ConfigError("percentile", got=settings.percentile, expected="None for a prior")
    condition, shape = {"text": text, "text_embedding": text_embeddings}, text_embeddings.shape[1:]
    drawn = []
    with evaluating(prior), torch.no_grad():
        denoise = _guided(prior, condition, len(keys), settings.guidance_scale)
        for candidate in range(candidates):
            purpose = f"prior, candidate {candidate}"
            noise = keyed_noise(keys, shape, purpose=purpose, device=prior.device)
            drawn.append(prior.scale.inverse(_run(prior, denoise, noise, settings, None)))
    embeddings = torch.stack(drawn)  # candidates B E
    best = (embeddings * text_embeddings.to(prior.device)).sum(dim=2).argmax(dim=0)
    return embeddings[best, torch.arange(len(best), device=best.device)]


@torch.no_grad()
def measure_noise(
    prior: DiffusionPrior,
    text: Int64[Tensor, "B T"],
    text_embeddings: Float[Tensor, "B E"],
    image_embeddings: Float[Tensor, "B E"],
    *,
    num_steps: int,
) -> None:
    """Find what "analytic_dpm" wants to know, and keep it in the prior.

    Args:
        prior: The prior, trained.
        text: Tokens of captions of the training data.
        text_embeddings: CLIP's of them, unit vectors.
        image_embeddings: CLIP's of their pictures, unit vectors.
        num_steps: Steps that will be taken.
    """
    keys, device = [(0, row) for row in range(len(text))], prior.device
    condition = {"text": text, "text_embedding": text_embeddings}
    x_0 = prior.scale(image_embeddings.to(device))
    noise = keyed_noise(keys, x_0.shape[1:], purpose="measure", device=device)
    timesteps = even_timesteps(prior.schedule.num_timesteps, num_steps)
    with evaluating(prior):
        denoise = _guided(prior, condition, len(keys), 1.0)
        found = mean_squared_noise(denoise, x_0, prior.schedule, timesteps, noise=noise)
    prior.mean_squared_noise.copy_(found)


def _guided(model: DiffusionModel, condition: Condition, rows: int, scale: float) -> Denoiser:
    """The model under guidance, with its condition encoded once for all steps."""
    if rows == 0:
        raise ConfigError("keys", got=[], expected="at least one")
    for name, value in condition.items():
        if len(value) != rows:
            raise ConfigError(name, got=len(value), expected=f"a row for each of {rows} keys")
    condition = {name: value.to(model.device) for name, value in condition.items()}
    encoded = model.encode(condition)
    null = {} if scale == 1 else model.encode(model.null(condition))
    return guide(model.denoise, encoded, null, scale=scale)


def _run(
    model: DiffusionModel,
    denoise: Denoiser,
    noise: Noise,
    settings: DiffusionSampling,
    on_step: OnStep | None,
) -> Tensor:
    schedule = model.schedule
    timesteps = even_timesteps(schedule.num_timesteps, settings.num_steps)
    x = noise(0)
    if settings.sampler == "ddim":
        return ddim(denoise, x, schedule, timesteps, on_step=on_step)
    if settings.sampler == "dpm_solver":
        return dpm_solver(denoise, x, schedule, timesteps, on_step=on_step)
    if settings.sampler == "analytic_dpm":
        assert isinstance(model, DiffusionPrior)
        squares = model.mean_squared_noise.cpu().double()
        return analytic_dpm(
            denoise, x, schedule, timesteps, noise=noise, mean_squared_noise=squares
        )
    variance = "learned" if model.process.learned_variance else "small"
    return ddpm(denoise, x, schedule, timesteps, noise=noise, variance=variance, on_step=on_step)
