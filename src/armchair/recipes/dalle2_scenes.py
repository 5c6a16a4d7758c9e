"""DALL·E 2 on scenes, with each prior, and without a CLIP, or without captions; tiny ones too."""

from __future__ import annotations

import dataclasses

from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.diffusion.process import ProcessConfig
from armchair.models.priors.autoregressive import AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPriorConfig
from armchair.models.priors.one_step import OneStepPriorConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNetConfig
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.recipes.clip_scenes import clip_scenes, clip_scenes_tiny
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.dalle2_recipe import DALLE2Recipe
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.diffusion import DiffusionLossConfig
from armchair.training.objectives.prior import OneStepPriorLossConfig, PriorLossConfig
from armchair.training.optim import OptimizerConfig


def dalle2_scenes() -> DALLE2Recipe:
    """Pictures of scenes of 256x256 pixels, by 32 → 128 → 256, for a laptop.

    Command: armchair train dalle2-scenes --clip-from clip-scenes --out RUN
        Without --clip-from it trains a CLIP of that shape first, on its own 50,000 pictures.
    Hardware: one NVIDIA H100.
    Time: beside each other, 1.5 minutes for the embeddings, 2 for the prior, 5 for the decoder, and
        7 and 8 for the upsamplers. Two cores of an AMD EPYC without AVX512 learn from about 120
        pictures a second in the prior, 15 in the decoder, and 28 and 20 in the upsamplers; with
        AVX512-BF16 from 55 in the decoder, which is two and a half hours.
    Scores to expect: all of 256 pictures of seen pairs and 98.8% of held-out ones are right in all,
        and 44.5% of those of two objects in a relation (`armchair evaluate`).
    """
    judge = clip_scenes()
    return DALLE2Recipe(
        name="dalle2-scenes",
        description="DALL·E 2 on scenes, a procedural world of objects made of foods.",
        data=dataclasses.replace(judge.data, num_pictures=50_000),
        tokenizer=judge.tokenizer,
        clip=judge.clip,
        clip_loss=judge.clip_loss,
        clip_training=judge.clip_training,
        prior=DiffusionPriorConfig(
            stream=_text(judge.tokenizer, dim=192, num_layers=3, num_heads=6),
            embedding_dim=judge.clip.embedding_dim,
            process=ProcessConfig(parameterisation="x_0"),
            scaling="unit",  # whitened, 168 axes of noise weigh as much as the 24 that tell
        ),
        prior_loss=PriorLossConfig(),
        prior_training=_training(num_images=480_000, batch_size=128, learning_rate=2e-3),
        decoder=UNetConfig(
            image_size=32,
            channels=32,
            multipliers=(1, 2, 4),
            num_blocks=1,
            process=ProcessConfig(parameterisation="v"),  # few steps ask for no learned variance
            attention_sizes=(8,),
            head_dim=32,
            text=_text(judge.tokenizer, dim=128, num_layers=3, num_heads=4),
            embedding_dim=judge.clip.embedding_dim,
        ),
        decoder_loss=DiffusionLossConfig(  # the middle first, and the grain when the rate is low
            logit_normal=Schedule.of(1.0, (0.8, 1.0, "linear"), (0.9, 0.0, "linear"))
        ),
        decoder_training=_training(num_images=480_000, batch_size=192, learning_rate=5e-3),
        first_upsampler=_upsampler(32, 128, channels=32, multipliers=(1, 2, 2)),
        first_upsampler_loss=DiffusionLossConfig(crop_size=32, degradation="blur"),
        first_upsampler_training=_training(num_images=160_000, batch_size=32, learning_rate=4e-3),
        second_upsampler=_upsampler(128, 256, channels=16, multipliers=(1, 2, 2)),
        second_upsampler_loss=DiffusionLossConfig(crop_size=64, degradation="bsr"),
        second_upsampler_training=_training(num_images=120_000, batch_size=32, learning_rate=4e-3),
        sampling=DALLE2SamplingConfig(guidance_scale=2.0),
        # As for DALL·E 1: two objects in reading order first, and either order once they are bound.
        wordings=Schedule.of(0.5, (0.3, 0.5, "linear"), (0.5, 1.0, "linear")),
    )


def dalle2_scenes_one_step() -> DALLE2Recipe:
    """dalle2-scenes with the prior of ECLIPSE, in one step.

    Command: armchair train dalle2-scenes-one-step --out RUN
    Time: 2 minutes for the prior on one NVIDIA H100; the rest as for dalle2-scenes.
    Scores to expect: 87.9% of the decoder's pictures of seen pairs, 85.5% of held-out ones and
        43.4% of those of two objects (256 prompts of each), with the decoder of dalle2-scenes. It
        draws the mean of what a caption leaves open, which no background is.
    """
    recipe = dalle2_scenes()
    assert isinstance(recipe.prior, DiffusionPriorConfig)
    return dataclasses.replace(
        recipe,
        name="dalle2-scenes-one-step",
        prior=OneStepPriorConfig(
            stream=recipe.prior.stream, embedding_dim=recipe.prior.embedding_dim
        ),
        prior_loss=OneStepPriorLossConfig(),
    )


def dalle2_scenes_autoregressive() -> DALLE2Recipe:
    """dalle2-scenes with the paper's other prior, code after code.

    Command: armchair train dalle2-scenes-autoregressive --out RUN
    Scores to expect: none yet; not trained.

    Of its CLIP's 192 dimensions, 24 hold 99% of what differs between scenes.
    """
    recipe = dalle2_scenes()
    assert isinstance(recipe.prior, DiffusionPriorConfig)
    return dataclasses.replace(
        recipe,
        name="dalle2-scenes-autoregressive",
        prior=AutoregressivePriorConfig(
            stream=recipe.prior.stream,
            embedding_dim=recipe.prior.embedding_dim,
            num_components=40,
        ),
    )


def glide_scenes() -> DALLE2Recipe:
    """GLIDE on scenes: the decoder of dalle2-scenes told the caption alone, and its upsamplers.

    Command: armchair train glide-scenes --out RUN
    Time: 6 minutes for the decoder on one NVIDIA H100.
    Scores to expect: 93.0% of the decoder's pictures of seen pairs, 86.7% of held-out ones and
        21.9% of those of two objects (256 prompts of each).
    """
    return _glide(dalle2_scenes(), "glide-scenes")


def ddpm_scenes() -> DALLE2Recipe:
    """A DDPM on scenes of 32x32 pixels: the decoder of dalle2-scenes told nothing.

    Command: armchair train ddpm-scenes --out RUN
    Time: 5 minutes on one NVIDIA H100.
    Scores to expect: objects and materials are right to the eye; backgrounds are any colour, and
        clean in 250 steps of "ddpm" rather than in 20 of the usual sampler.
    """
    return _ddpm(dalle2_scenes(), "ddpm-scenes")


def dalle2_scenes_tiny() -> DALLE2Recipe:
    """A DALL·E 2 with one upsampler at toy size: 16 → 32 pixels.

    Command: armchair train dalle2-scenes-tiny --out RUN
    Time: two minutes on 2 CPU cores is the aim; not measured yet.

    Its pictures are smudges; it is there to see every stage at work. Its upsampler learns on crops
    of half the side, as a quarter of 32 pixels would show nothing.
    """
    recipe, judge = dalle2_scenes(), clip_scenes_tiny()
    text = _text(judge.tokenizer, dim=64, num_layers=1, num_heads=2)
    assert isinstance(recipe.prior, DiffusionPriorConfig)
    return dataclasses.replace(
        recipe,
        name="dalle2-scenes-tiny",
        description="A toy: every stage of a DALL·E 2.",
        data=DataConfig(source="scenes", num_pictures=2000, num_validation=32),
        tokenizer=judge.tokenizer,
        clip=judge.clip,
        clip_training=judge.clip_training,
        prior=dataclasses.replace(
            recipe.prior, stream=text, embedding_dim=judge.clip.embedding_dim
        ),
        prior_training=_short(num_images=12_800),
        decoder=dataclasses.replace(
            recipe.decoder, image_size=16, channels=16, multipliers=(1, 2), num_blocks=1,
            attention_sizes=(8,), head_dim=16, text=text, embedding_dim=judge.clip.embedding_dim,
        ),
        decoder_training=_short(num_images=12_800),
        first_upsampler=_upsampler(16, 32, channels=8, multipliers=(1, 2)),
        first_upsampler_loss=DiffusionLossConfig(crop_size=16, degradation="blur"),
        first_upsampler_training=_short(num_images=6400),
        second_upsampler=None,
        second_upsampler_loss=None,
        second_upsampler_training=None,
    )  # fmt: skip


def glide_scenes_tiny() -> DALLE2Recipe:
    """Every stage of a GLIDE at toy size: 16 → 32 pixels.

    Command: armchair train glide-scenes-tiny --out RUN
    """
    return _glide(dalle2_scenes_tiny(), "glide-scenes-tiny")


def ddpm_scenes_tiny() -> DALLE2Recipe:
    """A DDPM at toy size: 16x16 pixels.

    Command: armchair train ddpm-scenes-tiny --out RUN
    """
    return _ddpm(dalle2_scenes_tiny(), "ddpm-scenes-tiny")


def _glide(recipe: DALLE2Recipe, name: str) -> DALLE2Recipe:
    """The same without a CLIP and a prior; a fifth of the captions is left out (GLIDE, §4)."""
    return dataclasses.replace(
        recipe,
        name=name,
        description=recipe.description.replace("DALL·E 2", "GLIDE"),
        clip=None,
        clip_loss=None,
        clip_training=None,
        prior=None,
        prior_loss=None,
        prior_training=None,
        decoder=dataclasses.replace(recipe.decoder, embedding_dim=None),
        decoder_loss=dataclasses.replace(recipe.decoder_loss, text_dropout=0.2),
    )


def _ddpm(recipe: DALLE2Recipe, name: str) -> DALLE2Recipe:
    """The same without captions and upsamplers too; it predicts the noise, as the paper has it."""
    glide = _glide(recipe, name)
    return dataclasses.replace(
        glide,
        description=glide.description.replace("GLIDE", "DDPM"),
        tokenizer=None,
        decoder=dataclasses.replace(
            glide.decoder, text=None, process=ProcessConfig(schedule="linear")
        ),
        decoder_loss=DiffusionLossConfig(),
        first_upsampler=None,
        first_upsampler_loss=None,
        first_upsampler_training=None,
        second_upsampler=None,
        second_upsampler_loss=None,
        second_upsampler_training=None,
        sampling=DALLE2SamplingConfig(),
    )


def _text(
    tokenizer: TokenizerConfig, *, dim: int, num_layers: int, num_heads: int
) -> TextStreamConfig:
    return TextStreamConfig(
        vocab_size=tokenizer.vocab_size,
        text_length=tokenizer.context_length,
        dim=dim,
        num_layers=num_layers,
        num_heads=num_heads,
    )


def _upsampler(
    low_size: int, image_size: int, *, channels: int, multipliers: tuple[int, ...]
) -> UNetConfig:
    return UNetConfig(
        image_size=image_size,
        low_size=low_size,
        channels=channels,
        multipliers=multipliers,
        num_blocks=1,
        process=ProcessConfig(parameterisation="v"),
    )


def _training(*, num_images: int, batch_size: int, learning_rate: float) -> TrainingConfig:
    return TrainingConfig(
        num_images=num_images,
        batch_size=batch_size,
        optimizer=OptimizerConfig(
            learning_rate=Schedule.of(
                0.0, (0.02, learning_rate, "linear"), (1.0, learning_rate / 100, "cosine")
            ),
            betas=(0.9, 0.99),
            weight_decay=0.01,
            clip_norm=1.0,
            average_decay=0.995,
            hidden_matrices="muon",
        ),
        log_every=40 * batch_size,
        validate_every=800 * batch_size,
        checkpoint_every=400 * batch_size,
    )


def _short(*, num_images: int) -> TrainingConfig:
    return dataclasses.replace(
        _training(num_images=num_images, batch_size=32, learning_rate=3e-3),
        log_every=640,
        validate_every=num_images,
        checkpoint_every=6400,
        num_workers=0,
    )
