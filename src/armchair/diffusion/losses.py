"""What diffusion models minimise: squared error, and the variational bound for learned variances.

Source: "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), equations 5, 13 and 14;
"Improved Denoising Diffusion Probabilistic Models" (arXiv 2102.09672), section 3.1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.diffusion.process import (
    Parameterisation,
    Prediction,
    add_noise,
    posterior,
    target,
    to_x_0,
)
from armchair.diffusion.schedules import NoiseSchedule, at

BOUND_WEIGHT = 0.001  # lambda of the hybrid loss
_HALF_LEVEL = 1 / 255  # half of the distance of two levels of 8 bits in [-1, 1]


def simple_loss(
    output: Float[Tensor, "B *S"], wanted: Float[Tensor, "B *S"]
) -> Float[Tensor, " B"]:
    """Mean squared error of each example (equation 14 of DDPM)."""
    return (output - wanted).square().flatten(1).mean(dim=1)


def hybrid_loss(
    schedule: NoiseSchedule,
    x_0: Float[Tensor, "B C *S"],
    t: Int[Tensor, " B"],
    noise: Float[Tensor, "B C *S"],
    output: Float[Tensor, "B C2 *S"],
    parameterisation: Parameterisation,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """L_simple, and the bound that trains the learned variance alone (equation 16).

    L_hybrid = L_simple + 0.001 L_vlb, where L_vlb is a sum over all T timesteps, so that one
    timestep drawn at random stands for it T times over. The mean inside the bound passes no
    gradient.

    Args:
        schedule: The schedule.
        x_0: Clean pictures in [-1, 1].
        t: Timesteps.
        noise: The noise in x_t.
        output: The network's, its second half the variance; see `denoiser_of`.
        parameterisation: What the first half speaks of.

    Returns:
        L_simple and 0.001 L_vlb (in bits a dimension) of each example.
    """
    x_t = add_noise(schedule, x_0, t, noise)
    mean_output, raw = output.chunk(2, dim=1)
    simple = simple_loss(mean_output, target(schedule, x_0, t, noise, parameterisation))
    frozen = to_x_0(schedule, x_t, t, mean_output.detach(), parameterisation)
    bits = bound_term(schedule, x_0, x_t, t, Prediction(frozen, (raw + 1) / 2))
    return simple, BOUND_WEIGHT * schedule.num_timesteps * bits


def bound_term(
    schedule: NoiseSchedule,
    x_0: Float[Tensor, "B *S"],
    x_t: Float[Tensor, "B *S"],
    t: Int[Tensor, " B"],
    prediction: Prediction,
) -> Float[Tensor, " B"]:
    """L_t of the variational bound: a divergence of posteriors, or at t = 0 a likelihood.

    Args:
        schedule: The schedule.
        x_0: Clean pictures in [-1, 1], of 256 levels.
        x_t: The same with noise.
        t: Timesteps.
        prediction: The denoiser's, of x_t; with no variance fraction the largest variance counts.

    Returns:
        Bits a dimension for each example.
    """
    alpha_bar_t = at(schedule.alpha_bar, t, x_0.double())
    alpha_bar_s = at(schedule.alpha_bar_before, t, x_0.double())
    weights = posterior(alpha_bar_t, alpha_bar_s)
    true_mean = weights.x_0_weight * x_0 + weights.x_t_weight * x_t
    mean = weights.x_0_weight * prediction.x_0 + weights.x_t_weight * x_t
    small = _log_posterior_variance(schedule, t, x_0)
    large = (1 - alpha_bar_t / alpha_bar_s).log()
    fraction = prediction.variance_fraction
    log_variance = large if fraction is None else fraction * large + (1 - fraction) * small
    divergence = 0.5 * (
        log_variance
        - small
        + torch.exp(small - log_variance)
        + (true_mean - mean).square() * torch.exp(-log_variance)
        - 1
    )
    first = (t == 0).view(-1, *[1] * (x_0.ndim - 1))
    nats = torch.where(first, _discretised_nll(x_0, mean, log_variance), divergence)
    return (nats.flatten(1).mean(dim=1) / math.log(2)).to(x_0.dtype)


def prior_term(schedule: NoiseSchedule, x_0: Float[Tensor, "B *S"]) -> Float[Tensor, " B"]:
    """L_T of the bound: how far q(x_T | x_0) is from a standard normal, in bits a dimension."""
    alpha_bar = float(schedule.alpha_bar[-1])
    mean_squared = alpha_bar * x_0.double().square()
    nats = 0.5 * (mean_squared + (1 - alpha_bar) - 1 - math.log1p(-alpha_bar))
    return (nats.flatten(1).mean(dim=1) / math.log(2)).to(x_0.dtype)


def _log_posterior_variance(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> Tensor:
    """Its logarithm; that of t = 0, which is 0, is replaced by that of t = 1."""
    variance = posterior(schedule.alpha_bar, schedule.alpha_bar_before).variance
    second = variance[1:2] if len(variance) > 1 else schedule.betas
    return at(torch.cat([second, variance[1:]]).log(), t, like.double())


def _discretised_nll(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-ln of a normal's mass within half a level of x_0; the outermost levels take the tails."""
    centred = (x_0 - mean) * torch.exp(-0.5 * log_variance)
    half = _HALF_LEVEL * torch.exp(-0.5 * log_variance)
    upper, lower = torch.special.ndtr(centred + half), torch.special.ndtr(centred - half)
    mass = torch.where(x_0 > 1 - _HALF_LEVEL, 1 - lower, upper - lower)
    mass = torch.where(x_0 < -1 + _HALF_LEVEL, upper, mass)
    return -mass.clamp(min=1e-12).log()
