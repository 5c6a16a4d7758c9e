"""What the discrete VAE and the VQ-VAE share in training: scores, and previews."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from armchair.core.images import contact_sheet, to_pil
from armchair.core.random import torch_generator
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.likelihoods import psnr_db
from armchair.models.autoencoders.quantizers import code_counts, perplexity
from armchair.training.objective import Objective

Autoencoder = TypeVar("Autoencoder", bound=ImageTokenizer)


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
