"""The numbers of "Zero-Shot Text-to-Image Generation", section by section."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
import torch
from torch import nn

from armchair.models.autoencoders.convolutional import Decoder
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.sequence.text_to_image import TextToImageTransformer
from armchair.pipelines.dalle1 import build_autoencoder
from armchair.recipes import build_recipe
from armchair.training.dalle1 import DALLE1Recipe
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig

AUTOENCODER_UPDATES = 3_000_000
TRANSFORMER_UPDATES = 430_000


@pytest.fixture(scope="module")
def recipe() -> DALLE1Recipe:
    return build_recipe("dalle1-paper")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def updates(training: TrainingConfig) -> Fraction:
    return Fraction(training.num_images, training.batch_size)


# Section 2.1 and appendix A: the discrete VAE


def test_parameters_of_the_discrete_vae(recipe: DALLE1Recipe) -> None:
    with torch.device("meta"):
        model = build_autoencoder(recipe.autoencoder)
    assert isinstance(model, DiscreteVAE)
    assert isinstance(model.decoder, Decoder)
    assert count(model.encoder) == 53_786_240
    assert count(model) - count(model.encoder) == 43_829_766  # with the codebook, its first layer


def test_shape_of_the_discrete_vae(recipe: DALLE1Recipe) -> None:
    config = recipe.autoencoder
    assert isinstance(config, DiscreteVAEConfig)
    assert config.image_size == 256
    assert config.grid_size == 32
    assert config.codebook_size == 8192
    assert config.num_groups * config.blocks_per_group == 8
    assert config.gain == 1 / 8**2
    assert config.patch_size == 1
    assert config.logits == "linear"
    assert not config.detach_scale
    assert config.min_log_scale is None
    numbers, positions = 3 * config.image_size**2, config.grid_size**2
    assert numbers / positions == 192  # fewer tokens than numbers in a picture


def test_loss_of_the_discrete_vae(recipe: DALLE1Recipe) -> None:
    loss, total = recipe.autoencoder_loss, AUTOENCODER_UPDATES
    assert isinstance(loss, DiscreteVAELossConfig)
    assert loss.reconstruction == "logit_laplace"
    assert loss.kl_weight(0.0) == 0
    assert loss.kl_weight(2500 / total) == pytest.approx(3.3)  # halfway along half a cosine
    assert loss.kl_weight(1250 / total) < 3.3 / 2
    assert loss.kl_weight(5000 / total) == loss.kl_weight(1.0) == 6.6
    assert loss.temperature(0.0) == 1
    assert loss.temperature(75_000 / total) == pytest.approx((1 + 1 / 16) / 2)
    assert loss.temperature(37_500 / total) > (1 + (1 + 1 / 16) / 2) / 2
    assert loss.temperature(150_000 / total) == loss.temperature(1.0) == 1 / 16
    assert {loss.noise(progress) for progress in (0.0, 0.01, 0.5, 1.0)} == {1.0}
    assert loss.usage_weight == loss.commitment_weight == loss.restart_below == 0


def test_training_of_the_discrete_vae(recipe: DALLE1Recipe) -> None:
    training, total = recipe.autoencoder_training, AUTOENCODER_UPDATES
    assert training.batch_size == 512
    assert updates(training) == total
    optimizer = training.optimizer
    assert optimizer.hidden_matrices == "adamw"
    assert optimizer.betas == (0.9, 0.999)
    assert optimizer.epsilon == 1e-8
    assert optimizer.weight_decay == 1e-4
    assert optimizer.clip_norm is None
    assert (optimizer.average_decay, optimizer.average_every) == (0.999, 1)
    step_size = optimizer.learning_rate
    assert step_size(0.0) == 1e-4
    assert step_size(600_000 / total) == pytest.approx((1e-4 + 1.25e-6) / 2)
    assert step_size(300_000 / total) > (1e-4 + step_size(600_000 / total)) / 2  # no straight line
    assert step_size(1_200_000 / total) == step_size(1.0) == 1.25e-6


def test_pictures_are_cropped_and_flipped(recipe: DALLE1Recipe) -> None:
    assert recipe.augment
    assert recipe.autoencoder_from is None
    assert recipe.data.num_pictures == 250_000_000


# Section 2.2 and appendix B: the transformer


def test_text_of_the_transformer(recipe: DALLE1Recipe) -> None:
    assert recipe.tokenizer.vocab_size == recipe.transformer.text_vocab_size == 16_384
    assert recipe.tokenizer.context_length == recipe.transformer.text_length == 256
    assert recipe.tokenizer.dropout == 0.1


def test_shape_of_the_transformer(recipe: DALLE1Recipe) -> None:
    config = recipe.transformer
    assert (config.num_layers, config.num_heads, config.dim) == (64, 62, 3968)
    assert config.dim // config.num_heads == 64
    assert config.image_vocab_size == 8192
    assert config.image_length == 1024
    assert config.text_length + config.image_length == 1280
    assert config.dropout == 0
    assert config.checkpoint_activations


def test_parameters_and_patterns_of_the_transformer(recipe: DALLE1Recipe) -> None:
    with torch.device("meta"):
        model = TextToImageTransformer(recipe.transformer)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    assert sum(p.numel() for p in matrices) == 12 * 64 * 3968**2 == 12_092_178_432
    kinds = [pattern.kind for pattern in model.patterns]
    assert kinds[:4] == ["row", "column", "row", "row"]
    assert Counter(kinds) == {"row": 47, "column": 16, "convolution": 1}
    assert kinds[-1] == "convolution"
    assert model.patterns[-1].conv_kernel == 11


def test_loss_of_the_transformer(recipe: DALLE1Recipe) -> None:
    loss = recipe.transformer_loss
    assert (loss.text_weight, loss.image_weight) == (1 / 8, 7 / 8)
    assert loss.condition_dropout == 0


def test_training_of_the_transformer(recipe: DALLE1Recipe) -> None:
    training, total = recipe.transformer_training, TRANSFORMER_UPDATES
    assert training.batch_size == 1024
    assert updates(training) == total
    optimizer = training.optimizer
    assert optimizer.hidden_matrices == "adamw"
    assert optimizer.betas == (0.9, 0.96)
    assert optimizer.epsilon == 1e-8
    assert optimizer.weight_decay == 4.5e-2
    assert optimizer.clip_norm == 4
    assert (optimizer.average_decay, optimizer.average_every) == (0.99, 25)


def test_step_size_of_the_transformer(recipe: DALLE1Recipe) -> None:
    step_size = recipe.transformer_training.optimizer.learning_rate
    assert step_size(0.0) == 0
    assert step_size(2500 / TRANSFORMER_UPDATES) == pytest.approx(2.25e-4)
    assert step_size(5000 / TRANSFORMER_UPDATES) == 4.5e-4
    later = [step_size(n / 1000) for n in range(12, 1001)]
    assert later == sorted(later, reverse=True)
    assert sorted(set(later), reverse=True) == [4.5e-4 / 2**n for n in range(6)]
    assert step_size(1.0) == 4.5e-4 / 32
