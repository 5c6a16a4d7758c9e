"""The picture's part of an image tokenizer's loss.

    loss = reconstruction_loss(images, statistics, "logit_laplace")
    errors = error_by_place(images, statistics, grid_size=16)      # where it comes out badly

A CPU computes each in one compiled pass (compiled_reconstruction.py), and the gradient too, where
torch makes some sixty; `reconstruction_reference` and `error_by_place_reference` are what these are
tested against, and what other devices run.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from armchair.models.autoencoders.likelihoods import (
    absolute_plus_squared_error,
    logit_laplace_nll,
    reconstruct,
)

Reconstruction = Literal["logit_laplace", "absolute_plus_squared"]

# Beside another loss of the means, the likelihood trains the scale alone; its weight only has to
# keep that read-out's gradient small beside the rest.
_SCALE_WEIGHT = 0.01


def reconstruction_loss(
    images: Float[Tensor, "B 3 H W"],
    statistics: Float[Tensor, "B 6 H W"],
    reconstruction: Reconstruction,
) -> Float[Tensor, ""]:
    """The picture's part of the loss: a mean over the batch, divided by a picture's dimensions.

    Args:
        images: Pictures in [-1, 1], which have no gradient.
        statistics: What the decoder gave.
        reconstruction: "logit_laplace" is the paper's likelihood. "absolute_plus_squared" trains
            the means by |d| + d², and the scales by the likelihood at those means.

    Returns:
        Nats a dimension, or the error's own unit.
    """
    if statistics.device.type != "cpu" or statistics.dtype != torch.float32:
        return reconstruction_reference(images, statistics, reconstruction)
    return _CompiledReconstruction.apply(images, statistics, reconstruction)


def reconstruction_reference(
    images: Float[Tensor, "B 3 H W"],
    statistics: Float[Tensor, "B 6 H W"],
    reconstruction: Reconstruction,
) -> Float[Tensor, ""]:
    """The same in torch's own operations, on any device."""
    dimensions = images[0].numel()
    if reconstruction == "logit_laplace":
        return logit_laplace_nll(images, statistics).mean() / dimensions
    means, log_scales = statistics.chunk(2, dim=1)
    error = absolute_plus_squared_error(images, statistics).mean()
    fixed = torch.cat([means.detach(), log_scales], dim=1)
    return (error + _SCALE_WEIGHT * logit_laplace_nll(images, fixed).mean()) / dimensions


@torch.no_grad()
def error_by_place(
    images: Float[Tensor, "B 3 H W"], statistics: Float[Tensor, "B 6 H W"], grid_size: int
) -> Float[Tensor, "B h w"]:
    """Mean absolute error of the patch that each place of the grid stands for.

    Args:
        images: Pictures in [-1, 1].
        statistics: What the decoder gave.
        grid_size: Places along one side, h = w, of which H and W are multiples.
    """
    if statistics.device.type != "cpu" or statistics.dtype != torch.float32:
        return error_by_place_reference(images, statistics, grid_size)
    from armchair.core.threads import share
    from armchair.models.autoencoders.compiled_reconstruction import add_errors

    errors = statistics.new_empty(len(images), grid_size, grid_size)
    height, width = images.shape[2:]
    share(add_errors, images.contiguous(), statistics.contiguous(), height, width, errors)
    return errors


def error_by_place_reference(
    images: Float[Tensor, "B 3 H W"], statistics: Float[Tensor, "B 6 H W"], grid_size: int
) -> Float[Tensor, "B h w"]:
    """The same in torch's own operations, on any device."""
    error = (images - reconstruct(statistics)).abs().mean(1)
    return F.adaptive_avg_pool2d(error, grid_size)


class _CompiledReconstruction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, statistics: Tensor, reconstruction: Reconstruction
    ) -> Tensor:
        from armchair.core.threads import share  # imports numba
        from armchair.models.autoencoders.compiled_reconstruction import reconstruct

        by_likelihood = reconstruction == "logit_laplace"
        weights = (0.0, 1.0, 1.0) if by_likelihood else (1.0, _SCALE_WEIGHT, 0.0)
        images, statistics = images.contiguous(), statistics.contiguous()
        totals = statistics.new_empty(len(images), dtype=torch.float64)
        d_statistics = torch.empty_like(statistics)
        numbers = (np.float32(x) for x in (*weights, 1 / images.numel()))
        share(reconstruct, images, statistics, *numbers, totals, d_statistics)
        ctx.save_for_backward(d_statistics)
        return (totals.sum() / images.numel()).float()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[None, Tensor, None]:
        (d_statistics,) = ctx.saved_tensors
        return None, d_statistics if gradient == 1 else d_statistics * gradient, None
