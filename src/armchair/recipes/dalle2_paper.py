"""The paper's DALL·E 2, in full, with either of its priors."""

from __future__ import annotations

import dataclasses

from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.diffusion.process import ProcessConfig
from armchair.models.clip import CLIPConfig
from armchair.models.priors.autoregressive import AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPriorConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNetConfig
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.dalle2_recipe import DALLE2Recipe
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.contrastive import ContrastiveLossConfig
from armchair.training.objectives.diffusion import DiffusionLossConfig
from armchair.training.objectives.prior import PriorLossConfig
from armchair.training.optim import OptimizerConfig

_VOCAB_SIZE, _TEXT_LENGTH = 49_407, 256
_EMBEDDING_DIM = 1024
_CLIP_PICTURES = 650_000_000
_CLIP_BATCH_SIZE = 32_768
_CLIP_UPDATES = 32 * _CLIP_PICTURES // _CLIP_BATCH_SIZE
_WARM_UP = 2000  # updates of CLIP


def dalle2_paper() -> DALLE2Recipe:
    """Hierarchical Text-Conditional Image Generation with CLIP Latents, at the paper's sizes.

    Command: armchair train dalle2-paper --data folder:PATH --out RUN
    Hardware: far more than one process has; this recipe is the reference from which others derive.
    Sizes: decoder 3.56 billion parameters (3.5 in the paper), first upsampler 730 million (700),
        both within 5%. Prior 1.33 billion where the paper rounds to 1: its table names a text
        encoder of 24 layers of width 2,048, which alone has 1.21. Second upsampler 282 million
        where the paper says 300: its table gives widths and numbers of blocks, and no more of
        them.
    Scores to expect: none measured here. The paper's zero-shot FID on MS-COCO is 10.39.

    Where the paper's text leaves room: CLIP's batches, schedule and epochs are those of CLIP's own
    paper, without sharpness-aware minimisation. One vocabulary, learnt from the captions, serves
    all parts, with 256 positions. Step sizes stay as they are after 1,000 updates of warm-up. Each
    picture's centre is used; the paper speaks of 650 million pictures for CLIP and 250 million for
    the rest, here it is one set. The variance of the prior's steps is measured after training, and
    the prior draws without guidance.
    """
    text = TextStreamConfig(
        vocab_size=_VOCAB_SIZE, text_length=_TEXT_LENGTH, dim=2048, num_layers=24, num_heads=32
    )
    return DALLE2Recipe(
        name="dalle2-paper",
        description="DALL·E 2 as published.",
        data=DataConfig(source="scenes", num_pictures=_CLIP_PICTURES),
        tokenizer=TokenizerConfig(vocab_size=_VOCAB_SIZE, context_length=_TEXT_LENGTH, dropout=0.0),
        clip=CLIPConfig(
            image_size=256,
            patch_size=16,
            image_dim=1280,
            image_layers=32,
            image_heads=16,
            text_vocab_size=_VOCAB_SIZE,
            text_length=_TEXT_LENGTH,
            text_dim=1024,
            text_layers=24,
            text_heads=16,
            embedding_dim=_EMBEDDING_DIM,
        ),
        clip_loss=ContrastiveLossConfig(chunk_size=256),
        clip_training=TrainingConfig(
            num_images=_CLIP_UPDATES * _CLIP_BATCH_SIZE,
            batch_size=_CLIP_BATCH_SIZE,
            optimizer=OptimizerConfig(
                learning_rate=Schedule.of(
                    0.0, (_WARM_UP / _CLIP_UPDATES, 3e-4, "linear"), (1.0, 0.0, "cosine")
                ),
                betas=(0.9, 0.98),
                epsilon=1e-6,
                weight_decay=0.2,
                clip_norm=None,
                average_decay=0.0,
            ),
            num_workers=8,
        ),
        augment=True,
        prior=DiffusionPriorConfig(
            stream=text,
            embedding_dim=_EMBEDDING_DIM,
            process=ProcessConfig(parameterisation="x_0"),
            scaling="paper",
        ),
        prior_loss=PriorLossConfig(),
        prior_training=_training(
            600_000, 4096, 1.1e-4, beta_2=0.96, epsilon=1e-6, weight_decay=6.0e-2
        ),
        decoder=UNetConfig(
            image_size=64,
            channels=512,
            multipliers=(1, 2, 3, 4),
            num_blocks=3,
            process=ProcessConfig(learned_variance=True),
            attention_sizes=(32, 16, 8),
            head_dim=64,
            dropout=0.1,
            text=text,
            embedding_dim=_EMBEDDING_DIM,
        ),
        decoder_loss=DiffusionLossConfig(),
        decoder_training=_training(800_000, 2048, 1.2e-4),
        first_upsampler=UNetConfig(
            image_size=256,
            low_size=64,
            channels=320,
            multipliers=(1, 2, 3, 4),
            num_blocks=3,
            process=ProcessConfig(),
            dropout=0.1,
        ),
        first_upsampler_loss=DiffusionLossConfig(crop_size=64, degradation="blur"),
        first_upsampler_training=_training(1_000_000, 1024, 1.2e-4),
        second_upsampler=UNetConfig(
            image_size=1024,
            low_size=256,
            channels=192,
            multipliers=(1, 1, 2, 2, 4, 4),
            num_blocks=2,
            process=ProcessConfig(schedule="linear"),
        ),
        second_upsampler_loss=DiffusionLossConfig(crop_size=256, degradation="bsr"),
        second_upsampler_training=_training(1_000_000, 512, 1.0e-4),
        sampling=DALLE2SamplingConfig(
            prior_steps=64,
            prior_sampler="analytic_dpm",
            decoder_steps=250,
            decoder_sampler="ddpm",
            guidance_scale=1.25,
            first_upsampler_steps=27,
            second_upsampler_steps=15,
            upsampler_sampler="ddim",
        ),
    )


def dalle2_paper_autoregressive() -> DALLE2Recipe:
    """dalle2-paper with its autoregressive prior: 319 components of 1,024 buckets.

    Command: armchair train dalle2-paper-autoregressive --data folder:PATH --out RUN
    Size of the prior: 0.89 billion parameters, where the paper says 1 and names a text encoder
        besides its 24 layers of width 1,664; see `armchair.models.priors.autoregressive`.
    """
    recipe = dalle2_paper()
    assert isinstance(recipe.prior, DiffusionPriorConfig)
    return dataclasses.replace(
        recipe,
        name="dalle2-paper-autoregressive",
        prior=AutoregressivePriorConfig(
            stream=dataclasses.replace(recipe.prior.stream, dim=1664, num_heads=26),
            embedding_dim=_EMBEDDING_DIM,
            num_components=319,
        ),
        prior_training=_training(
            1_000_000,
            4096,
            1.6e-4,
            beta_2=0.91,
            epsilon=1e-10,
            weight_decay=4.0e-2,
            average_decay=0.999,
        ),
    )


def _training(
    updates: int,
    batch_size: int,
    learning_rate: float,
    *,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    average_decay: float = 0.9999,
) -> TrainingConfig:
    return TrainingConfig(
        num_images=updates * batch_size,
        batch_size=batch_size,
        optimizer=OptimizerConfig(
            learning_rate=Schedule.of(0.0, (1000 / updates, learning_rate, "linear")),
            betas=(0.9, beta_2),
            epsilon=epsilon,
            weight_decay=weight_decay,
            clip_norm=None,
            average_decay=average_decay,
        ),
        log_every=100 * batch_size,
        validate_every=10_000 * batch_size,
        checkpoint_every=1000 * batch_size,
        num_workers=8,
    )
