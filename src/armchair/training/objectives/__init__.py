"""What each stage minimises."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from armchair.models.autoencoders.dvae import DiscreteVAE
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.vqvae import VQVAE
from armchair.training.objectives.autoencoder import AutoencoderObjective
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig, DiscreteVAEObjective
from armchair.training.objectives.vqvae import VQVAELossConfig, VQVAEObjective


def autoencoder_objective(
    model: ImageTokenizer,
    validation: Float[Tensor, "B 3 H W"],
    config: DiscreteVAELossConfig | VQVAELossConfig | None = None,
) -> AutoencoderObjective:
    """The objective of an image tokenizer, under its default loss if `config` is not given."""
    if isinstance(model, DiscreteVAE):
        assert config is None or isinstance(config, DiscreteVAELossConfig)
        return DiscreteVAEObjective(model, config or DiscreteVAELossConfig(), validation)
    assert isinstance(model, VQVAE)
    assert config is None or isinstance(config, VQVAELossConfig)
    return VQVAEObjective(model, config or VQVAELossConfig(), validation)
