"""What the recipes of all runs have in common, and the stages that they walk."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.loop import TrainingConfig

Stage = Literal[
    "tokenizer",
    "autoencoder",
    "codes",
    "transformer",
    "clip",
    "embeddings",
    "prior",
    "decoder",
    "first_upsampler",
    "second_upsampler",
    "bundle",
]
"""The stages of all runs; each run walks some of them."""

WITHOUT_TRAINING: tuple[Stage, ...] = ("tokenizer", "codes", "embeddings", "bundle")
"""The stages that train no network."""


@runtime_checkable
class Recipe(Protocol):
    """What every recipe says."""

    @property
    def name(self) -> str:
        """The recipe's name."""
        ...

    @property
    def description(self) -> str:
        """What the model card says of the model."""
        ...

    @property
    def data(self) -> DataConfig:
        """The pictures."""
        ...

    @property
    def tokenizer(self) -> TokenizerConfig | None:
        """How captions become tokens; None where none are read."""
        ...

    @property
    def truncate(self) -> bool:
        """Cut captions that are longer than the tokenizer's text, instead of refusing them."""
        ...

    @property
    def start_from(self) -> str | None:
        """A bundle whose networks training begins with, by name or path."""
        ...

    @property
    def wordings(self) -> Schedule:
        """Share of each picture's captions, from the first on, as a function of progress."""
        ...


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def with_training(recipe: AnyRecipe, **changes: Any) -> AnyRecipe:
    """The same recipe with fields of each stage's `TrainingConfig` replaced, such as the seed."""
    whole: Any = recipe
    stages = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(whole)}
    changed = {
        name: dataclasses.replace(stage, **changes)
        for name, stage in stages.items()
        if isinstance(stage, TrainingConfig)
    }
    return dataclasses.replace(whole, **changed)
