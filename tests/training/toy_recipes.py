"""Recipes whose stages take milliseconds."""

from __future__ import annotations

import dataclasses
from typing import Any

import toys

from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.models.autoencoders.dvae import DiscreteVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.dalle1 import DALLE1Recipe
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig
from armchair.training.objectives.text_to_image import TextToImageLossConfig


def dalle1_recipe(**changes: Any) -> DALLE1Recipe:
    """Twenty pictures, twenty updates a stage; with all that draws at random in the second."""
    training = toys.config()
    muon = dataclasses.replace(training.optimizer, hidden_matrices="muon")
    fields: dict[str, Any] = {
        "name": "toy",
        "data": DataConfig(num_pictures=20, num_validation=4),
        "tokenizer": TokenizerConfig(vocab_size=280, context_length=128, dropout=0.1),
        "autoencoder": DiscreteVAEConfig(
            image_size=32,
            codebook_size=8,
            codebook_dim=4,
            width=8,
            num_groups=2,
            blocks_per_group=1,
            patch_size=4,
            logits="distance",
        ),
        "autoencoder_loss": DiscreteVAELossConfig(commitment_weight=0.1),
        "autoencoder_training": training,
        "augment": False,
        "transformer": transformer(128, codebook_size=8),
        "transformer_loss": TextToImageLossConfig(condition_dropout=0.3),
        "transformer_training": dataclasses.replace(training, optimizer=muon),
        "wordings": Schedule.of(0.5, (0.5, 1.0, "step")),
    }
    return DALLE1Recipe(**{**fields, **changes})


def transformer(text_length: int, *, codebook_size: int) -> TextToImageConfig:
    return TextToImageConfig(
        text_vocab_size=280,
        text_length=text_length,
        image_vocab_size=codebook_size,
        grid_size=4,
        dim=16,
        num_layers=2,
        num_heads=2,
    )
