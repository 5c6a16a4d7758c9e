"""`armchair train`: walk the stages of a recipe."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from armchair.cli.options import read_options
from armchair.core.device import Precision, resolve_device
from armchair.core.errors import ConfigError, UsageError
from armchair.recipes import RECIPES, build_recipe
from armchair.training.clip import CLIPRecipe, CLIPRun
from armchair.training.dalle1 import DALLE1Recipe, DALLE1Run
from armchair.training.dalle2 import DALLE2Run
from armchair.training.dalle2_recipe import DALLE2Recipe
from armchair.training.observers import (
    MetricsFile,
    Observer,
    Observers,
    PreviewFolder,
    TensorBoard,
    WeightsAndBiases,
    check_services,
)
from armchair.training.recipe import WITHOUT_TRAINING, Stage, with_training
from armchair.training.run import Run

_RUNS: dict[type, tuple[type[Run[Any]], str]] = {
    DALLE1Recipe: (DALLE1Run, 'draw from it: armchair generate "…" --model {}'),
    DALLE2Recipe: (DALLE2Run, 'draw from it: armchair generate "…" --model {}'),
    CLIPRecipe: (CLIPRun, 'rank with it: armchair rank "…" PICTURES --model {}'),
}
"""For each kind of recipe how it runs, and what its bundle is for."""


@dataclass(kw_only=True)
class TrainOptions:
    """Train a recipe, stage by stage, from a tokenizer to a bundle.

    A run that was interrupted goes on when the same command is given again. Every field of the
    recipe is an option, such as --transformer.num-layers 4.
    """

    out: Path
    """The run's folder."""
    data: str | None = None
    """"scenes", or "folder:PATH" for your own captioned pictures; the recipe's own if not given."""
    stage: Stage | None = None
    """Do this stage alone; all that are not done if not given."""
    seed: int | None = None
    """Of the whole run."""
    precision: Precision | None = None
    """Of matrix products."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Further places for curves; metrics.jsonl and previews/ are always written."""
    recipe: Annotated[DALLE1Recipe | CLIPRecipe | DALLE2Recipe, tyro.conf.arg(name="")] = field()
    """What is trained."""


def run(words: Sequence[str]) -> None:
    """Train what the words ask for."""
    if words and words[0] in ("-h", "--help"):
        print(_usage())
        return
    if not words or words[0].startswith("-"):
        got, expected = next(iter(words), None), "one of " + ", ".join(RECIPES)
        raise UsageError("recipe", got=got, expected=expected, hint=_usage().splitlines()[0])
    default = TrainOptions(out=Path("runs") / words[0], recipe=build_recipe(words[0]))
    try:
        options = read_options(TrainOptions, words[1:], verb=f"train {words[0]}", default=default)
    except ConfigError as error:
        part = _part_with(error.field, words, default.recipe)
        raise (error.within(part) if part else error) from None
    recipe = options.recipe
    if options.data is not None:
        data = dataclasses.replace(recipe.data, source=options.data)
        recipe = dataclasses.replace(recipe, data=data)
    if options.seed is not None:
        recipe = with_training(recipe, seed=options.seed)
    if options.precision is not None:
        recipe = with_training(recipe, precision=options.precision)
    check_services(options.log_to)
    device = resolve_device(options.device)

    from armchair.cli.progress import TrainingProgress, console, progress_bar

    def observe(stage: Stage, folder: Path) -> Observer:
        observers: list[Observer] = []
        if stage not in WITHOUT_TRAINING:
            observers += [MetricsFile(folder / "metrics.jsonl"), PreviewFolder(folder / "previews")]
            if "tensorboard" in options.log_to:
                observers.append(TensorBoard(folder / "tensorboard"))
            if "wandb" in options.log_to:
                observers.append(WeightsAndBiases(folder, {"recipe": recipe.name}))
        observers.append(TrainingProgress(stage))  # last, as a service may refuse to start
        return Observers(observers)

    kind, use = _RUNS[type(recipe)]
    walk = kind(
        recipe,
        options.out,
        device=device,
        observe=observe,
        message=console.print,
        command=shlex.join(["armchair", "train", *words]),
    )
    if recipe.data.source != "scenes":
        with progress_bar("checking pictures", "pictures") as advance:
            walk.data.open(advance)
    result = walk.run(options.stage)
    console.print(f"done: {result}")
    if options.stage in (None, "bundle"):
        console.print(use.format(result))
    print(result)


def _part_with(field: str, words: Sequence[str], recipe: Any) -> str | None:
    """The part of a recipe that has the field, of those whose options were given.

    None if there is none, or more than one may be meant.
    """
    named: dict[str, set[str]] = {}
    for word in words:
        part, dot, name = word.partition("=")[0].removeprefix("--").rpartition(".")
        if word.startswith("--") and dot:
            named.setdefault(part.replace("-", "_"), set()).add(name.replace("-", "_"))
    having = {part for part in named if hasattr(_at(recipe, part), field)}
    having = {part for part in having if field in named[part]} or having
    return having.pop() if len(having) == 1 else None


def _at(recipe: Any, path: str) -> Any:
    """A part of a recipe, by the path to it; None if it is not there."""
    for name in path.split("."):
        recipe = getattr(recipe, name, None)
    return recipe


def _usage() -> str:
    recipes = "\n".join(
        f"  {name:18}  {(build.__doc__ or '').splitlines()[0]}" for name, build in RECIPES.items()
    )
    return (
        "usage: armchair train RECIPE [--out RUN] [--data folder:PATH] [OPTIONS]\n\n"
        f"recipes:\n{recipes}\n\n"
        "armchair train RECIPE --help tells every option of a recipe."
    )
