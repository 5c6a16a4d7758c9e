"""Drawing with diffusion models: embeddings with a prior, pictures with a U-Net.

    embeddings = sample_embeddings(prior, text, text_embeddings, keys=keys, settings=settings)
    images = sample_images(decoder, {"text": text, "embedding": embeddings}, keys=keys, ...)
    images = sample_images(upsampler, {"low": images}, keys=keys, settings=settings)

**The same picture in any batch.** All noise of picture k of seed S is keyed by (S, k), by what it
is for, and by the step. What is left is rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from armchair.core.cuda_graphs import graphed
from armchair.core.device import PRECISIONS, Precision, autocast, resolve_precision
from armchair.core.errors import ConfigError, SamplingError, UnknownNameError
from armchair.diffusion.guidance import (
    Condition,
    ConditionalDenoiser,
    guide,
    inpaint,
    threshold,
)
from armchair.diffusion.process import Denoiser, Prediction, add_noise
from armchair.diffusion.samplers import (
    Noise,
    OnStep,
    analytic_dpm,
    ddim,
    ddpm,
    dpm_solver,
    invert_ddim,
    keyed_noise,
    mean_squared_errors,
)
from armchair.diffusion.schedules import NoiseSchedule, even_timesteps, log_snr_timesteps
from armchair.models.diffusion_model import DiffusionModel
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.unet import UNet
from armchair.sampling.evaluating import evaluating

Sampler = Literal["ddpm", "analytic_dpm", "ddim", "dpm_solver"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
PICTURE_SAMPLERS = tuple(name for name in SAMPLERS if name != "analytic_dpm")
"""Those for pictures: the variance that "analytic_dpm" wants is measured for priors alone."""

_REFINEMENTS = 2  # of each step of an inversion


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling:
    """How a diffusion model draws.

    Attributes:
        num_steps: Steps, from 1 to the timesteps of the model's process.
        sampler: "ddpm" draws anew at each step, with the learned variance where there is one;
            "analytic_dpm" too, with the best variance for the steps, in a prior for which
            `measure_errors` has found what it needs; "ddim" and "dpm_solver" (second order) draw
            nothing but the start. The timesteps of "dpm_solver" are even in ln(signal / noise),
            those of the others in t.
        guidance_scale: At least 1, which is no guidance and costs half.
        percentile: None to clip pictures to their range; in (0, 1) to scale them back to it from
            this percentile of their magnitudes, which keeps strong guidance from saturating.
        eta: At least 0, and 0 for all but "ddim": how much is drawn anew at each step.
        strength: In (0, 1]. Below 1 the steps begin at given pictures with some noise in them,
            that of this share of all timesteps, and so large a share of the steps is taken.
        precision: Of matrix products; "auto" takes bfloat16 where the hardware has it, which
            draws half as fast again and moves a pixel by a level or two of its 255.
    """

    num_steps: int
    sampler: Sampler = "dpm_solver"
    guidance_scale: float = 1.0
    percentile: float | None = None
    eta: float = 0.0
    strength: float = 1.0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UnknownNameError("sampler", self.sampler, SAMPLERS)
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
        if not 0 <= self.eta < float("inf"):
            hint = "0 draws nothing anew, and 1 as much as DDPM"
            raise ConfigError("eta", got=self.eta, expected="at least 0, and finite", hint=hint)
        if self.eta and self.sampler != "ddim":
            raise ConfigError("eta", got=self.eta, expected="0, as the sampler is not ddim")
        if not 0 < self.strength <= 1:
            expected, hint = (
                "above 0, at most 1",
                "0.4 to 0.8 changes a picture and keeps its forms",
            )
            raise ConfigError("strength", got=self.strength, expected=expected, hint=hint)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The timesteps that are visited, falling to 0; of one step, the noisiest.

        Where they begin is decided by `strength` alone, not by how many there are.

        Raises:
            ConfigError: There are more steps than timesteps.
        """
        if self.num_steps > schedule.num_timesteps:
            expected = f"1 to {schedule.num_timesteps}"
            raise ConfigError("num_steps", got=self.num_steps, expected=expected)
        num_timesteps = max(1, round(self.strength * schedule.num_timesteps))
        num_steps = min(num_timesteps, max(1, round(self.strength * self.num_steps)))
        if self.sampler == "dpm_solver":
            return log_snr_timesteps(schedule.until(num_timesteps), num_steps)
        return even_timesteps(num_timesteps, num_steps)


@dataclass(frozen=True, eq=False)
class Known:
    """What is to stay of pictures, and what is painted anew.

    Attributes:
        images: The pictures, in [-1, 1].
        painted: 1 where they are painted anew, 0 where they stay.
    """

    images: Float[Tensor, "B 3 H W"]
    painted: Float[Tensor, "B 1 H W"]


def sample_images(
    model: UNet,
    condition: Condition,
    *,
    keys: Sequence[tuple[int, int]],
    settings: DiffusionSampling,
    latents: Float[Tensor, "B 3 H W"] | None = None,
    known: Known | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """Draw one picture for each key.

    Args:
        model: A decoder, or an upsampler; dropout is off while it draws.
        condition: What `UNet.encode` wants, a row for each key.
        keys: For each picture its (seed, index), which alone decide its noise.
        settings: How to draw.
        latents: What the first step begins with, from `invert_images` or `noise_images`; noise
            alone if not given.
        known: Pictures to keep in part; all is drawn if not given.
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
    if settings.sampler not in PICTURE_SAMPLERS:
        raise UnknownNameError("sampler of pictures", settings.sampler, PICTURE_SAMPLERS)
    size = config.image_size
    if config.low_size is not None and "low" in condition:
        size = condition["low"].shape[-1] * size // config.low_size
    noise = _picture_noise(model, keys, size)
    with _drawing(model, settings):
        denoise = _picture_denoiser(model, condition, len(keys), settings)
        if known is not None:
            denoise = inpaint(
                denoise, known.images.to(model.device), known.painted.to(model.device)
            )
        if latents is None:
            if settings.strength < 1:
                expected = "1, as there are no latents to begin with"
                raise ConfigError("strength", got=settings.strength, expected=expected)
            latents = noise(0)
        return _run(model, denoise, latents, noise, settings, on_step)


def invert_images(
    model: UNet,
    condition: Condition,
    images: Float[Tensor, "B 3 H W"],
    *,
    settings: DiffusionSampling,
    on_step: OnStep | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """The latents from which "ddim" at eta = 0 draws given pictures, under the same settings.

    Args:
        model: A decoder.
        condition: What `UNet.encode` wants, a row for each picture.
        images: The pictures, in [-1, 1], of the model's size.
        settings: How they will be drawn.
        on_step: As in `sample_images`.

    Source: DALL·E 2, section 3.1; DDIM, section 4.3.
    """
    with _drawing(model, settings):
        denoise = _picture_denoiser(model, condition, len(images), settings)
        timesteps = settings.timesteps(model.schedule)
        return invert_ddim(
            denoise,
            images.to(model.device),
            model.schedule,
            timesteps,
            refinements=_REFINEMENTS,
            on_step=on_step,
        )


def noise_images(
    model: UNet,
    images: Float[Tensor, "B 3 H W"],
    *,
    keys: Sequence[tuple[int, int]],
    settings: DiffusionSampling,
) -> Float[Tensor, "B 3 H W"]:
    """Pictures with as much noise in them as the first step of `settings` begins with."""
    noise = _picture_noise(model, keys, images.shape[-1])(0)
    first = settings.timesteps(model.schedule)[0]
    t = torch.full((len(images),), first, device=model.device)
    return add_noise(model.schedule, images.to(model.device), t, noise)


@contextmanager
def _drawing(model: DiffusionModel, settings: DiffusionSampling) -> Iterator[None]:
    """Dropout off, no gradients, and matrix products in the precision that was asked for.

    An error says in which model it arose.
    """
    dtype = resolve_precision(settings.precision, model.device)
    try:
        with evaluating(model), torch.no_grad(), autocast(model.device, dtype):
            yield
    except SamplingError as error:
        hint = "lower the guidance scale" if settings.guidance_scale > 1 else None
        what, _, _ = str(error).partition("\n")
        raise SamplingError(f"{model.role}: {what}", hint=hint) from error


def _picture_noise(model: UNet, keys: Sequence[tuple[int, int]], size: int) -> Noise:
    return keyed_noise(keys, (3, size, size), purpose=f"pictures {size}", device=model.device)


def _picture_denoiser(
    model: UNet, condition: Condition, rows: int, settings: DiffusionSampling
) -> Denoiser:
    denoise = _guided(model, condition, rows, settings.guidance_scale)
    return threshold(denoise, percentile=settings.percentile)


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
    with _drawing(prior, settings):
        denoise = _guided(prior, condition, len(keys), settings.guidance_scale)
        for candidate in range(candidates):
            purpose = f"prior, candidate {candidate}"
            noise = keyed_noise(keys, shape, purpose=purpose, device=prior.device)
            run = _run(prior, denoise, noise(0), noise, settings, None)
            drawn.append(prior.scale.inverse(run))
    embeddings = torch.stack(drawn)  # candidates B E
    best = (embeddings * text_embeddings.to(prior.device)).sum(dim=2).argmax(dim=0)
    return embeddings[best, torch.arange(len(best), device=best.device)]


@torch.no_grad()
def measure_errors(
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
        num_steps: Steps that will be taken; for others, what is between is interpolated.
    """
    keys, device = [(0, row) for row in range(len(text))], prior.device
    condition = {"text": text, "text_embedding": text_embeddings}
    x_0 = prior.scale(image_embeddings.to(device))
    noise = keyed_noise(keys, x_0.shape[1:], purpose="measure", device=device)
    timesteps = even_timesteps(prior.schedule.num_timesteps, num_steps)
    with evaluating(prior):
        denoise = _guided(prior, condition, len(keys), 1.0)
        found = mean_squared_errors(denoise, x_0, prior.schedule, timesteps, noise=noise)
    prior.mean_squared_errors.copy_(found)


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
    return guide(_recorded(model), encoded, null, scale=scale)


def _recorded(model: DiffusionModel) -> ConditionalDenoiser:
    """The model's denoiser for one condition, the same at every call; on a GPU it is recorded."""
    network: Callable[[Tensor, Tensor], Tensor] | None = None

    def denoise(x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        nonlocal network
        if network is None:
            network = graphed(lambda x_t, t: model(x_t, t, condition), model.device)
        return model.denoise(x_t, t, condition, network=network)

    return denoise


def _run(
    model: DiffusionModel,
    denoise: Denoiser,
    x: Tensor,
    noise: Noise,
    settings: DiffusionSampling,
    on_step: OnStep | None,
) -> Tensor:
    schedule = model.schedule
    timesteps = settings.timesteps(schedule)
    if settings.sampler == "ddim":
        return ddim(denoise, x, schedule, timesteps, eta=settings.eta, noise=noise, on_step=on_step)
    if settings.sampler == "dpm_solver":
        return dpm_solver(denoise, x, schedule, timesteps, on_step=on_step)
    if settings.sampler == "analytic_dpm":
        assert isinstance(model, DiffusionPrior)
        errors = model.mean_squared_errors.cpu().double()
        return analytic_dpm(
            denoise, x, schedule, timesteps, noise=noise, mean_squared_errors=errors
        )
    variance = "learned" if model.process.learned_variance else "small"
    return ddpm(denoise, x, schedule, timesteps, noise=noise, variance=variance, on_step=on_step)
