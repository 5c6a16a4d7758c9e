"""CLIP from captioned pictures to a bundle, stage by stage.

    tokenizer → clip → bundle

In the run's folder, besides what every run leaves there (see `armchair.training.run`):

    RUN/clip/             stage 2: training
    RUN/bundle/           stage 3: what `armchair rank --model` reads
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig, at_size
from armchair.models.clip import CLIPConfig, CLIPModel
from armchair.pipelines.clip import CLIP
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.examples import CaptionedImages, check_wordings
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.contrastive import ContrastiveLossConfig, ContrastiveObjective
from armchair.training.recipe import Stage
from armchair.training.run import Run

CLIP_FIELDS = (
    "data",
    "tokenizer",
    "clip",
    "clip_loss",
    "clip_training",
    "augment",
    "start_from",
    "wordings",
)
_DECIDED_BY: Mapping[Stage, tuple[str, ...]] = {
    "tokenizer": ("data", "tokenizer", "start_from"),
    "clip": CLIP_FIELDS,
    "bundle": CLIP_FIELDS,
}


@dataclass(frozen=True, kw_only=True)
class CLIPRecipe:
    """Everything that decides what a run makes.

    Attributes:
        name: The recipe's name.
        description: What the model card says of the model.
        data: The pictures.
        tokenizer: How captions become tokens.
        truncate: Cut captions that are longer than the tokenizer's text, instead of refusing them.
        clip: The model's shape.
        clip_loss: How its loss is computed.
        clip_training: How it is trained; its batches are the negatives.
        augment: Crop and shrink the pictures at random.
        start_from: A bundle, by name or path, whose network is trained further, with its tokenizer;
            `clip` then says the same as the bundle.
        wordings: Share of each picture's captions, from the first on, that it is trained with, as
            a function of progress.
    """

    name: str
    description: str = ""
    data: DataConfig
    tokenizer: TokenizerConfig
    truncate: bool = False
    clip: CLIPConfig
    clip_loss: ContrastiveLossConfig
    clip_training: TrainingConfig
    augment: bool = True
    start_from: str | None = None
    wordings: Schedule = Schedule.of(1.0)

    def __post_init__(self) -> None:
        check_wordings(self.wordings)
        wanted = {
            "text_vocab_size": ("tokenizer.vocab_size", self.tokenizer.vocab_size),
            "text_length": ("tokenizer.context_length", self.tokenizer.context_length),
        }
        for name, (source, value) in wanted.items():
            if getattr(self.clip, name) != value:
                raise ConfigError(
                    f"clip.{name}", got=getattr(self.clip, name), expected=f"{value}, as {source}"
                )
        check_clip_training(self.clip_training)


class CLIPRun(Run[CLIPRecipe]):
    """A run of a CLIP."""

    decided_by = _DECIDED_BY

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels."""
        return self.recipe.clip.image_size

    def _clip(self) -> Path:
        recipe = self.recipe
        objective, examples = clip_lesson(
            self, recipe.clip, recipe.clip_loss, recipe.clip_training, augment=recipe.augment
        )
        return self._train("clip", objective, examples, recipe.clip_training)

    def _bundle(self) -> Path:
        recipe = self.recipe
        model, about = self._trained("clip", CLIPModel(recipe.clip), recipe.clip_training)
        clip = CLIP(self.text_tokenizer, model)
        return self._write_bundle(clip, made_from={"clip": about["sha256"]}, trained=about)


def clip_lesson(
    run: Run[Any],
    config: CLIPConfig,
    loss: ContrastiveLossConfig,
    training: TrainingConfig,
    *,
    augment: bool,
) -> tuple[ContrastiveObjective, CaptionedImages]:
    """What a CLIP minimises, and on what, in any run that trains one."""
    objective = ContrastiveObjective(
        run.new("clip", training, lambda: CLIPModel(config)),
        loss,
        images=run.data.validation_images(config.image_size),
        text=run.validation_text,
    )
    examples = CaptionedImages(
        at_size(run.data.pictures, config.image_size),
        run.wordings(training),
        size=config.image_size,
        seed=training.seed,
        augment=augment,
        near_misses=loss.near_misses,
    )
    return objective, examples


def check_clip_training(training: TrainingConfig) -> None:
    """Refuse batches in parts, in any recipe that trains a CLIP.

    Raises:
        ConfigError: They are.
    """
    if training.accumulation != 1:
        raise ConfigError(
            "clip_training.accumulation",
            got=training.accumulation,
            expected="1, as every pair is told from all of its batch",
            hint="clip_loss.chunk_size saves memory and leaves the loss as it is",
        )
