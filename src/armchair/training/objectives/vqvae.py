"""The VQ-VAE's loss: the picture's part, and beta times the encoder's commitment to its codes.

Source: van den Oord et al. (arXiv 1711.00937), equation 3; the codebook follows by moving averages.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from armchair.models.autoencoders.reconstruction import Reconstruction, reconstruction_loss
from armchair.models.autoencoders.vqvae import VQVAE, QuantizedOutput
from armchair.training.objective import Batch, Loss
from armchair.training.objectives.autoencoder import AutoencoderObjective


@dataclass(frozen=True, kw_only=True)
class VQVAELossConfig:
    """The loss.

    Attributes:
        commitment_weight: beta: how strongly the encoder is held to its codes.
        reconstruction: The picture's part of the loss.
    """

    commitment_weight: float = 0.25
    reconstruction: Reconstruction = "logit_laplace"


class VQVAEObjective(AutoencoderObjective[VQVAE]):
    """Trains a `VQVAE` on batches of "images".

    Args:
        model: The model.
        config: The loss.
        validation: Pictures in [-1, 1] that are never trained on.
    """

    def __init__(
        self, model: VQVAE, config: VQVAELossConfig, validation: Float[Tensor, "B 3 H W"]
    ) -> None:
        super().__init__(model, validation)
        self.config = config
        self.outputs: list[QuantizedOutput] = []  # of the parts of one update

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The loss of "images" in [-1, 1], divided by a picture's dimensions."""
        images = batch["images"]
        output = self.model.quantize(images)
        self.outputs.append(output)
        error = reconstruction_loss(images, output.statistics, self.config.reconstruction)
        total = error + self.config.commitment_weight * output.commitment
        metrics = {"reconstruction": error.detach(), "commitment": output.commitment.detach()}
        return Loss(total, metrics)

    def after_update(self, generator: torch.Generator) -> dict[str, float]:
        """Move the codebook toward the batch."""
        codes = torch.cat([output.codes for output in self.outputs])
        latents = torch.cat([output.latents for output in self.outputs])
        self.outputs.clear()
        return {"restarted": float(self.model.update_codebook(codes, latents, generator))}
