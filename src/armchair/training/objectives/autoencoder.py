"""What the discrete VAE and the VQ-VAE share: the picture's loss, scores, and previews."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from armchair.core.images import contact_sheet, to_pil
from armchair.core.random import torch_generator
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.likelihoods import (
    absolute_plus_squared_error,
    logit_laplace_nll,
    psnr_db,
)
from armchair.models.autoencoders.quantizers import code_counts, perplexity
from armchair.training.objective import Objective

Reconstruction = Literal["logit_laplace", "absolute_plus_squared"]
Autoencoder = TypeVar("Autoencoder", bound=ImageTokenizer)

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
        images: Pictures in [-1, 1].
        statistics: What the decoder gave.
        reconstruction: "logit_laplace" is the paper's likelihood. "absolute_plus_squared" trains
            the means by |d| + d², and the scales by the likelihood at those means.

    Returns:
        Nats a dimension, or the error's own unit.
    """
    dimensions = images[0].numel()
    if reconstruction == "logit_laplace":
        return logit_laplace_nll(images, statistics).mean() / dimensions
    means, log_scales = statistics.chunk(2, dim=1)
    error = absolute_plus_squared_error(images, statistics).mean()
    fixed = torch.cat([means.detach(), log_scales], dim=1)
    return (error + _SCALE_WEIGHT * logit_laplace_nll(images, fixed).mean()) / dimensions


class AutoencoderObjective(Objective[Autoencoder]):
    """Validation and previews of an image tokenizer.

    Args:
        model: The tokenizer.
        validation: Pictures in [-1, 1] that are never trained on.
    """

    def __init__(self, model: Autoencoder, validation: Float[Tensor, "B 3 H W"]) -> None:
        self.model = model
        self.validation = validation

    def bounds(
        self, images: Float[Tensor, "B 3 H W"], *, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Evidence lower bounds of each picture in nats, named; "true_elbo" uses hard codes."""
        return {"true_elbo": self.model.elbo_nats(images, generator)}

    def validate(self, *, progress: float, batch_size: int = 32) -> dict[str, float]:
        """PSNR in decibels, use of the codebook, and bounds in bits a dimension."""
        codes, psnr, bounds = [], [], []
        device = next(self.model.parameters()).device
        for index, images in enumerate(self.validation.split(batch_size)):
            images = images.to(device)  # noqa: PLW2901
            codes.append(self.model.encode(images))
            psnr.append(psnr_db(images, self.model.decode(codes[-1]).float()))
            generator = torch_generator("elbo", index, device=device)
            bounds.append(self.bounds(images, progress=progress, generator=generator))
        counts = code_counts(torch.cat(codes), self.model.config.codebook_size)
        nats_to_bits = 1 / (math.log(2) * self.validation[0].numel())
        return {
            "psnr_db": float(torch.cat(psnr).mean()),
            "codes_used": float((counts > 0).sum()),
            "perplexity": perplexity(counts),
            **{
                f"{name}_bits": float(torch.cat([b[name] for b in bounds]).mean()) * nats_to_bits
                for name in bounds[0]
            },
        }

    def preview(self) -> Image.Image:
        """Pictures above what their codes say."""
        images = self.validation[:12].to(next(self.model.parameters()).device)
        again = self.model.decode(self.model.encode(images)).float()
        rows = [
            pair for half in (slice(0, 6), slice(6, 12)) for pair in (images[half], again[half])
        ]
        return contact_sheet(to_pil(torch.cat(rows)), columns=min(6, len(images)))
