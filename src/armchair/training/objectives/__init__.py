"""What each stage minimises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from armchair.models.autoencoders.dvae import DiscreteVAE
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.vqvae import VQVAE
from armchair.models.priors.autoregressive import AutoregressivePrior
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.priors.one_step import OneStepPrior
from armchair.sampling.diffusion import DiffusionSampling
from armchair.training.objectives.autoencoder import AutoencoderObjective
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig, DiscreteVAEObjective
from armchair.training.objectives.prior import (
    AutoregressivePriorObjective,
    DiffusionPriorObjective,
    OneStepPriorLossConfig,
    OneStepPriorObjective,
    PriorLossConfig,
    PriorObjective,
)
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


def prior_objective(
    model: DiffusionPrior | AutoregressivePrior | OneStepPrior,
    config: PriorLossConfig | OneStepPriorLossConfig,
    *,
    validation: Mapping[str, Tensor],
    sampling: DiffusionSampling,
) -> PriorObjective[Any]:
    """The objective of a prior; `sampling` is how validation draws with one that diffuses."""
    if isinstance(model, OneStepPrior):
        assert isinstance(config, OneStepPriorLossConfig)
        return OneStepPriorObjective(model, config, validation=validation)
    assert isinstance(config, PriorLossConfig)
    if isinstance(model, AutoregressivePrior):
        return AutoregressivePriorObjective(model, config, validation=validation)
    return DiffusionPriorObjective(model, config, validation=validation, sampling=sampling)
