"""What a run takes from a bundle, and whether it fits: networks, and a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from armchair.core.config import first_difference, to_dict
from armchair.core.errors import ConfigError
from armchair.pipelines import load_bundle
from armchair.pipelines.bundle import Bundle, open_bundle
from armchair.pipelines.bundle_search import find_bundle
from armchair.text.tokenizer import Tokenizer
from armchair.training.recipe import Recipe, Stage

_HINT = "give it the bundle's shape, or begin anew: leave out --start-from"


class Start:
    """The bundle whose networks training begins with; it is opened when it is needed.

    Args:
        source: Its name or path.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle."""
        return open_bundle(find_bundle(self.source, field="start_from"))

    @cached_property
    def model(self) -> Any:
        """Its model."""
        return load_bundle(self.bundle, torch.device("cpu"))

    def network(self, stage: Stage, recipe: Recipe) -> nn.Module | None:
        """What a stage begins with; None where the bundle lacks it.

        Raises:
            ConfigError: It is not what the recipe says.
        """
        network = self.model.parts.get(stage)
        if network is not None:
            check_shape(stage, network, recipe, bundle=self.bundle, hint=_HINT)
        return network

    def tokenizer(self, recipe: Recipe) -> Tokenizer:
        """Its tokenizer.

        Raises:
            ConfigError: It has none that can be trained with, or not what the recipe says.
        """
        tokenizer = self.model.tokenizer
        if not isinstance(tokenizer, Tokenizer):
            expected = "a bundle that has a vocabulary of its own"
            raise ConfigError("start_from", got=self.source, expected=expected)
        return fitting_tokenizer(tokenizer, recipe, bundle=self.bundle)


def check_start(
    recipe: Recipe, start: Start | None, trained: Sequence[Stage], waiting: Sequence[Stage]
) -> None:
    """Refuse a bundle to start from that does not fit, and no pictures for a network that is new.

    Args:
        recipe: What is trained.
        start: Where it begins, if anywhere.
        trained: The stages that train a network.
        waiting: Those of them that have not begun; the bundle is not asked for the others.

    Raises:
        ConfigError: One of these.
    """
    given = [stage for stage in waiting if start is not None and start.network(stage, recipe)]
    if start is not None and waiting and not start.model.parts.keys() & set(trained):
        raise ConfigError(
            "start_from",
            got=f"{start.bundle.name}, of {', '.join(start.model.parts)}",
            expected=f"a bundle with some of {', '.join(trained)}",
        )
    for stage in waiting:
        if stage not in given and not getattr(recipe, f"{stage}_training").num_images:
            raise ConfigError(
                f"{stage}_training.num_images",
                got=0,
                expected="at least 1",
                hint="0 keeps what the bundle has that --start-from names",
            )


def check_shape(
    stage: Stage, model: nn.Module, recipe: Recipe, *, bundle: Bundle, hint: str
) -> None:
    """Refuse a bundle's model that is not what the recipe says.

    Raises:
        ConfigError: It is not.
    """
    difference = first_difference(to_dict(model.config), to_dict(getattr(recipe, stage)))
    if difference:
        field, theirs, ours = difference
        expected = f"{theirs!r}, as in the bundle {bundle.name}"
        raise ConfigError(f"{stage}.{field}", got=ours, expected=expected, hint=hint)


def fitting_tokenizer(tokenizer: Tokenizer, recipe: Recipe, *, bundle: Bundle) -> Tokenizer:
    """A bundle's tokenizer, if it is what the recipe says.

    Raises:
        ConfigError: It is not.
    """
    difference = first_difference(to_dict(tokenizer.config), to_dict(recipe.tokenizer))
    if difference:
        field, theirs, ours = difference
        expected = f"{theirs!r}, as in the bundle {bundle.name}"
        raise ConfigError(f"tokenizer.{field}", got=ours, expected=expected)
    return tokenizer
