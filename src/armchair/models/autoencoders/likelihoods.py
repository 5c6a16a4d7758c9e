"""How likely a picture is given the decoder's statistics, and what codes cost.

The logit-Laplace density has the bounded support of a pixel (appendix A.3, equation 2):

    f(x | mu, b) = 1 / (2 b x (1 - x)) · exp(-|logit(x) - mu| / b)

with pixels mapped into its open support by phi(x) = (1 - 2 eps) x + eps for x in [0, 1],
eps = 0.1 (appendix A.3, equation 3).

Source: "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), appendix A.3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from armchair.core.images import from_unit, to_unit

EPSILON = 0.1


def map_pixels(images: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """phi: [-1, 1] into [eps, 1 - eps], where the likelihood is defined."""
    return to_unit(images).mul(1 - 2 * EPSILON).add(EPSILON)


def unmap_pixels(mapped: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The inverse of phi, clamped: (0, 1) to [-1, 1]."""
    return from_unit(mapped.sub(EPSILON).div(1 - 2 * EPSILON).clamp(0, 1))


def reconstruct(statistics: Float[Tensor, "B 6 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The picture in [-1, 1] that the statistics describe: phi⁻¹(sigmoid(mu)), ignoring ln b."""
    return unmap_pixels(statistics[:, :3].sigmoid())


def logit_laplace_nll(
    images: Float[Tensor, "B 3 H W"], statistics: Float[Tensor, "B 6 H W"]
) -> Float[Tensor, " B"]:
    """Negative log-likelihood of pictures, summed over their pixels and channels.

    The density is that of the mapped pixel phi(x); it can exceed 1, so the value can be negative.

    Args:
        images: Pictures in [-1, 1].
        statistics: Three means and three log-scales ln b for each pixel.

    Returns:
        Nats for each picture.
    """
    x = map_pixels(images)
    mu, log_scale = statistics.chunk(2, dim=1)
    nll = (
        (x.logit() - mu).abs() * torch.exp(-log_scale)
        + log_scale
        + math.log(2)
        + x.log()
        + torch.log1p(-x)
    )
    return nll.flatten(1).sum(1)


def absolute_plus_squared_error(
    images: Float[Tensor, "B 3 H W"], statistics: Float[Tensor, "B 6 H W"]
) -> Float[Tensor, " B"]:
    """|d| + d² of pixels in [0, 1], summed over a picture's pixels and channels.

    Not a likelihood: a departure for small budgets, where the learned scale of the logit-Laplace
    spends itself on flat backgrounds before the figures' colours are right.
    """
    predicted = (statistics[:, :3].sigmoid() - EPSILON) / (1 - 2 * EPSILON)
    difference = predicted - to_unit(images)
    return (difference.abs() + difference.square()).flatten(1).sum(1)


def kl_to_uniform(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, " B"]:
    """KL(q(z|x) || uniform), summed over a picture's codes: a picture's own, whatever the batch.

    Returns:
        Nats for each picture, from 0 to h·w·ln K.
    """
    log_q = F.log_softmax(logits.float(), dim=1)
    entropy = -(log_q.exp() * log_q).sum(1)
    return (math.log(logits.shape[1]) - entropy).flatten(1).sum(1)


def psnr_db(
    images: Float[Tensor, "B 3 H W"], reconstructions: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio of each picture in decibels, of pictures in [-1, 1]."""
    error = to_unit(images - reconstructions - 1).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))
