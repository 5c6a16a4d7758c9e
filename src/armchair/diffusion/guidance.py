"""Wrappers of denoisers: classifier-free guidance, and keeping x_0 to what it is known to be.

    denoise = threshold(guide(denoise, condition, null_condition, scale=3.0), bound=1.0)
    denoise = inpaint(denoise, pictures, painted)

Source: "Classifier-Free Diffusion Guidance" (arXiv 2207.12598), equation 6; for thresholding,
"Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding" (arXiv 2205.11487),
section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.diffusion.process import Denoiser, Prediction

Condition = Mapping[str, Tensor]
"""Named tensors, each with a row for each example."""

ConditionalDenoiser = Callable[[Tensor, Tensor, Condition], Prediction]


def guide(
    denoise: ConditionalDenoiser, condition: Condition, null: Condition, *, scale: float
) -> Denoiser:
    """Push predictions away from what the model would say without its condition.

    Both branches see the same x_t, and run as one batch. x_0 is linear in the noise, so that
    guiding either is the same. The learned variance is the condition's own.

    Args:
        denoise: A denoiser that also takes a condition.
        condition: What is asked for.
        null: What stands in for no condition, of the same names and shapes.
        scale: 1 for no guidance, and then no second branch; above it, the condition counts for
            more.

    Raises:
        ConfigError: The scale is below 1 or not finite.
    """
    if not 1 <= scale < float("inf"):
        raise ConfigError("guidance_scale", got=scale, expected="at least 1, and finite")
    if scale == 1:
        return lambda x_t, t: denoise(x_t, t, condition)
    both = {name: torch.cat([value, null[name]]) for name, value in condition.items()}

    def guided(x_t: Tensor, t: Tensor) -> Prediction:
        joint = denoise(torch.cat([x_t, x_t]), torch.cat([t, t]), both)
        conditional, unconditional = joint.x_0.chunk(2)
        fraction = joint.variance_fraction
        return Prediction(
            unconditional + scale * (conditional - unconditional),
            None if fraction is None else fraction.chunk(2)[0],
        )

    return guided


def threshold(
    denoise: Denoiser, *, bound: float = 1.0, percentile: float | None = None
) -> Denoiser:
    """Keep x_0 within ±bound, as guidance pushes it out.

    Args:
        denoise: What to wrap.
        bound: Largest magnitude of a clean element.
        percentile: None to clip (static). Otherwise, in (0, 1): where more than the rest of an
            example's elements lie outside, the example is clipped at that percentile of its
            magnitudes and scaled back to ±bound (dynamic), which keeps it from saturating.

    Raises:
        ConfigError: A value is out of range.
    """
    if bound <= 0:
        raise ConfigError("bound", got=bound, expected="above 0")
    if percentile is not None and not 0 < percentile < 1:
        raise ConfigError("percentile", got=percentile, expected="in (0, 1)")

    def thresholded(x_t: Float[Tensor, "B *S"], t: Int[Tensor, " B"]) -> Prediction:
        prediction = denoise(x_t, t)
        x_0 = prediction.x_0
        if percentile is None:
            kept = x_0.clamp(-bound, bound)
        else:
            limit = x_0.flatten(1).abs().quantile(percentile, dim=1).clamp(min=bound)  # B
            limit = limit.view(-1, *[1] * (x_0.ndim - 1))
            kept = x_0.clamp(-limit, limit) * (bound / limit)
        return replace(prediction, x_0=kept.where(x_0.isfinite(), x_0))  # samplers refuse those

    return thresholded


def inpaint(
    denoise: Denoiser, known: Float[Tensor, "B C H W"], painted: Float[Tensor, "B 1 H W"]
) -> Denoiser:
    """Keep x_0 to what it is known to be, outside of what is painted anew.

    Every sampler then lands on the known pixels exactly, and what is painted is drawn beside them.

    Args:
        denoise: What to wrap.
        known: Clean pictures.
        painted: 1 where they are painted anew, 0 where they stay; between the two a mixture.
    """

    def inpainted(x_t: Float[Tensor, "B C H W"], t: Int[Tensor, " B"]) -> Prediction:
        prediction = denoise(x_t, t)
        return replace(prediction, x_0=known + painted * (prediction.x_0 - known))

    return inpainted
