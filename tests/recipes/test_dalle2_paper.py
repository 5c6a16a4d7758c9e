"""The numbers of "Hierarchical Text-Conditional Image Generation with CLIP Latents", table 3."""

from __future__ import annotations

import pytest
import torch

from armchair.models.priors.autoregressive import AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPriorConfig
from armchair.models.unet import UNet, UNetConfig
from armchair.pipelines.dalle2_config import build_prior
from armchair.recipes import build_recipe
from armchair.training.dalle2 import DALLE2Recipe
from armchair.training.loop import TrainingConfig


@pytest.fixture(scope="module")
def recipe() -> DALLE2Recipe:
    return build_recipe("dalle2-paper")


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("part", "size", "tolerance"),
    [
        ("decoder", 3.5e9, 0.05),
        ("first_upsampler", 700e6, 0.05),
        ("second_upsampler", 300e6, 0.07),  # the recipe's docstring says why
    ],
)
def test_sizes(recipe: DALLE2Recipe, part: str, size: float, tolerance: float) -> None:
    config: UNetConfig = getattr(recipe, part)
    with torch.device("meta"):
        assert count(UNet(config)) == pytest.approx(size, rel=tolerance)


def test_sizes_of_the_priors(recipe: DALLE2Recipe) -> None:
    """The table says 1 billion of both; the recipe's docstring says what differs."""
    assert recipe.prior is not None
    with torch.device("meta"):
        assert count(build_prior(recipe.prior)) == pytest.approx(1.33e9, rel=0.01)
        other = build_recipe("dalle2-paper-autoregressive").prior
        assert isinstance(other, AutoregressivePriorConfig)
        assert count(build_prior(other)) == pytest.approx(0.89e9, rel=0.01)
    assert (other.stream.dim, other.stream.num_layers, other.stream.num_heads) == (1664, 24, 26)
    assert (other.num_components, other.num_buckets) == (319, 1024)


@pytest.mark.parametrize(
    ("part", "updates", "batch_size", "rate", "betas", "epsilon", "decay"),
    [
        ("prior", 600_000, 4096, 1.1e-4, (0.9, 0.96), 1e-6, 6.0e-2),
        ("other prior", 1_000_000, 4096, 1.6e-4, (0.9, 0.91), 1e-10, 4.0e-2),
        ("decoder", 800_000, 2048, 1.2e-4, (0.9, 0.999), 1e-8, 0.0),
        ("first_upsampler", 1_000_000, 1024, 1.2e-4, (0.9, 0.999), 1e-8, 0.0),
        ("second_upsampler", 1_000_000, 512, 1.0e-4, (0.9, 0.999), 1e-8, 0.0),
    ],
)
def test_training(
    recipe: DALLE2Recipe,
    part: str,
    updates: int,
    batch_size: int,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    decay: float,
) -> None:
    if part == "other prior":
        recipe, part = build_recipe("dalle2-paper-autoregressive"), "prior"
    training: TrainingConfig = getattr(recipe, f"{part}_training")
    assert training.num_images == updates * batch_size
    assert training.batch_size == batch_size
    optimizer = training.optimizer
    assert optimizer.learning_rate(0.5) == optimizer.learning_rate(1.0) == rate
    assert optimizer.betas == betas
    assert optimizer.epsilon == epsilon
    assert optimizer.weight_decay == decay
    assert optimizer.average_decay == (0.999 if updates == 1_000_000 and decay else 0.9999)


def test_shapes(recipe: DALLE2Recipe) -> None:
    decoder = recipe.decoder
    assert (decoder.image_size, decoder.channels, decoder.multipliers) == (64, 512, (1, 2, 3, 4))
    assert decoder.attention_sizes == (32, 16, 8)
    assert decoder.process.learned_variance
    assert decoder.process.schedule == "cosine"
    assert (decoder.num_blocks, decoder.head_dim, decoder.dropout) == (3, 64, 0.1)
    text = decoder.text
    assert text is not None
    assert (text.text_length, text.dim, text.num_layers, text.num_heads) == (256, 2048, 24, 32)
    prior = recipe.prior
    assert isinstance(prior, DiffusionPriorConfig)
    assert prior.stream == text
    assert (prior.process.parameterisation, prior.process.schedule) == ("x_0", "cosine")
    assert (prior.scaling, prior.embedding_dim) == ("paper", 1024)
    assert recipe.first_upsampler is not None
    assert recipe.second_upsampler is not None
    assert recipe.second_upsampler.process.schedule == "linear"
    first, second = recipe.first_upsampler, recipe.second_upsampler
    assert first.process.schedule == "cosine"
    assert (first.channels, first.multipliers, first.num_blocks) == (320, (1, 2, 3, 4), 3)
    assert (second.channels, second.num_blocks) == (192, 2)
    assert second.multipliers == (1, 1, 2, 2, 4, 4)
    assert (first.dropout, second.dropout) == (0.1, 0.0)
    for upsampler in (recipe.first_upsampler, recipe.second_upsampler):
        assert upsampler.image_size == 4 * (upsampler.low_size or 0)
        assert not upsampler.attention_sizes
    assert recipe.clip is not None
    assert (recipe.clip.image_size, recipe.clip.patch_size) == (256, 16)
    assert (recipe.clip.image_dim, recipe.clip.image_layers) == (1280, 32)
    assert (recipe.clip.text_dim, recipe.clip.text_layers) == (1024, 24)
    assert recipe.clip_training is not None
    warm_up = recipe.clip_training.optimizer.learning_rate.knots[1]
    assert warm_up.value == 3e-4


def test_losses(recipe: DALLE2Recipe) -> None:
    """Sections 2.1 and 2.2, and the table's crop fraction."""
    assert (recipe.decoder_loss.text_dropout, recipe.decoder_loss.embedding_dropout) == (0.5, 0.1)
    first, second = recipe.first_upsampler_loss, recipe.second_upsampler_loss
    assert first is not None
    assert second is not None
    assert (first.crop_size, first.degradation) == (256 // 4, "blur")
    assert (second.crop_size, second.degradation) == (1024 // 4, "bsr")


def test_sampling(recipe: DALLE2Recipe) -> None:
    sampling = recipe.sampling
    assert (sampling.prior_steps, sampling.prior_sampler) == (64, "analytic_dpm")
    assert sampling.prior_candidates == 2
    assert (sampling.decoder_steps, sampling.decoder_sampler) == (250, "ddpm")
    assert (sampling.first_upsampler_steps, sampling.second_upsampler_steps) == (27, 15)
    assert sampling.upsampler_sampler == "ddim"
    assert sampling.guidance_scale == 1.25
