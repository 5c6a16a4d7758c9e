"""A run: a recipe walked stage by stage in a folder, from captioned pictures to a bundle.

Each stage leaves its result in the run's folder and does nothing where that result is whole, so an
interrupted run goes on where it was. All runs end with a bundle, and those that read captions begin
with a tokenizer:

    RUN/recipe.json       for each stage that has begun, the fields of the recipe that decide it
    RUN/tokenizer.json    the first stage
    RUN/STAGE/            of a stage that trains: checkpoints/, metrics.jsonl, previews/
    RUN/bundle/           the last stage
    RUN/.lock             held by the process that runs
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from armchair.core.config import first_difference, from_dict, to_dict
from armchair.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    UnknownNameError,
    UsageError,
)
from armchair.core.files import make_folder, output_error, sha256, write_json
from armchair.core.images import to_tensor
from armchair.core.provenance import commit, hardware, today, version
from armchair.core.random import fold
from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig, at_size, open_data
from armchair.data.transforms import center_crop
from armchair.data.types import CaptionedPictures
from armchair.pipelines.bundle import Bundle, open_bundle
from armchair.pipelines.card import model_card
from armchair.text.tokenizer import Tokenizer, TokenizerConfig
from armchair.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from armchair.training.examples import Wordings, cut_captions
from armchair.training.loop import Interrupted, TrainingConfig, train
from armchair.training.objective import Objective
from armchair.training.observers import Observer

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

_SCENES_LICENCE = "Apache-2.0"


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
    def wordings(self) -> Schedule:
        """Share of each picture's captions, from the first on, as a function of progress."""
        ...


@runtime_checkable
class Savable(Protocol):
    """A model that can be written as a bundle."""

    def save(self, folder: Path, *, about: dict[str, Any], card: str) -> Bundle:
        """Write it; see `write_bundle`."""
        ...


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


class Run(ABC, Generic[AnyRecipe]):
    """A run of a recipe in a folder; a stage is the method of its name, with an underscore.

    Args:
        recipe: What to train.
        folder: Where; made if it is not there.
        device: Where to compute.
        observe: Gives the observer of a stage, by its name and folder; asked once a stage.
        message: Told what a person should know and no observer is there to hear.
        command: What was typed, for the model card.

    Attributes:
        decided_by: The stages, first to last, each with the fields of the recipe that decide its
            result.

    Raises:
        OutputError: The folder cannot be written to.
    """

    decided_by: ClassVar[Mapping[Stage, tuple[str, ...]]]

    def __init__(
        self,
        recipe: AnyRecipe,
        folder: Path,
        *,
        device: torch.device,
        observe: Callable[[Stage, Path], Observer],
        message: Callable[[str], None],
        command: str,
    ) -> None:
        self.recipe = recipe
        self._data: tuple[CaptionedPictures, CaptionedPictures] | None = None
        self.folder = make_folder(folder)
        self.device = device
        self.observe = observe
        self.message = message
        self.command = command

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the pictures in pixels."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this run, first to last."""
        return tuple(self.decided_by)

    def run(self, stage: Stage | None = None) -> Path:
        """Walk the stages that are not done; or do one, whose predecessors must be done.

        Returns:
            The folder or file of the last stage.

        Raises:
            CheckpointError: A stage began under other settings, or from what is no longer there.
            UsageError: An earlier stage is not done, the run has no such stage, or another process
                runs in this folder.
            Interrupted: Ctrl-C; what was done is saved.
        """
        if stage is not None and stage not in self.stages:
            raise UnknownNameError("stage", stage, self.stages)
        result = self.folder
        with _locked(self.folder):
            for name in self.stages if stage is None else (stage,):
                self._begin(name)
                try:
                    result = getattr(self, f"_{name}")()
                except KeyboardInterrupt as stop:
                    raise Interrupted(
                        f"stopped in the stage {name}",
                        hint="run the same command again to go on from there",
                    ) from stop
        return result

    # Data

    def open_data(
        self, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[CaptionedPictures, CaptionedPictures]:
        """Training and validation pictures; a folder's are checked first, with (done, total)."""
        if self._data is None:
            self._data = open_data(
                self.recipe.data,
                image_size=self.image_size,
                rejected=self.folder / "rejected.jsonl",
                decoded=self.folder / "decoded.json",
                message=self.message,
                on_progress=on_progress,
            )
        return self._data

    @property
    def pictures(self) -> CaptionedPictures:
        """The training pictures."""
        return self.open_data()[0]

    @property
    def num_validation(self) -> int:
        """How many pictures are never trained on."""
        return min(len(self.open_data()[1]), self.recipe.data.num_validation)

    def validation_images(self, size: int, count: int | None = None) -> Float[Tensor, "N 3 H W"]:
        """Pictures in [-1, 1] that are never trained on: the first `count`, all if not given."""
        indices = range(min(self.num_validation, count or self.num_validation))
        if not indices:
            raise DataError("no pictures are left for validation", hint="add more pictures")
        pictures = at_size(self.open_data()[1], size)
        return to_tensor(np.stack([center_crop(pictures.pixels(i), size) for i in indices]))

    @cached_property
    def validation_text(self) -> Int64[Tensor, "N T"]:
        """A caption of each, in tokens; the wordings take turns."""
        pictures = self.open_data()[1]
        wordings = [pictures.captions(index) for index in range(self.num_validation)]
        captions = [words[index % len(words)] for index, words in enumerate(wordings)]
        return torch.from_numpy(self.text_tokenizer.encode_batch(captions, truncate=True))

    def wordings(self, training: TrainingConfig) -> Wordings:
        """What draws a stage's captions."""
        share, num_images = self.recipe.wordings, training.num_images
        return Wordings(
            self.text_tokenizer,
            seed=training.seed,
            share=lambda position: share(position / num_images),
        )

    # The first stage and the last

    def _tokenizer(self) -> Path:
        path = self.folder / "tokenizer.json"
        if not path.exists():
            assert self.recipe.tokenizer is not None
            tokenizer = Tokenizer.train(self._captions(), self.recipe.tokenizer)
            if warning := cut_captions(self._captions(), tokenizer):
                self.message(f"tokenizer: {warning}")
            tokenizer.save(path)
        return path

    def _captions(self) -> Iterator[str]:
        return (c for index in range(len(self.pictures)) for c in self.pictures.captions(index))

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """The trained tokenizer."""
        return Tokenizer.load(self._done(self.folder / "tokenizer.json", "tokenizer"))

    @abstractmethod
    def _bundle(self) -> Path:
        """Write what was trained as a bundle."""

    def _write_bundle(
        self, model: Savable, *, made_from: dict[str, str], trained: dict[str, Any], **about: Any
    ) -> Path:
        """Write the run's bundle, unless a whole one made from the same files stands there.

        Args:
            model: What to write.
            made_from: The checksums of the checkpoints in it, by stage.
            trained: What the checkpoint of the last of them says about itself.
            **about: Further entries of the bundle's "about".
        """
        folder, recipe = self.folder / "bundle", self.recipe
        if self.recipe.tokenizer is not None:
            made_from = {"tokenizer": sha256(self.folder / "tokenizer.json"), **made_from}
        if _is_bundle_of(folder, made_from):
            return folder
        # The program that trained may be older than the one that bundles.
        made_by = {name: trained[name] for name in ("version", "commit")}
        about = {
            "recipe": {**self._identity(), **made_by},
            "description": recipe.description,
            "command": self.command,
            "pictures": len(self.pictures),
            "made_from": made_from,
            **({"licence": _SCENES_LICENCE} if recipe.data.source == "scenes" else {}),
            **about,
            "hardware": hardware(self.device),
            "date": today(),
        }
        model.save(folder, about=about, card=model_card(recipe.name, about, None))
        return folder

    # Training

    def _train(
        self,
        stage: Stage,
        objective: Objective[Any],
        examples: Any,
        config: TrainingConfig,
        **about: str,
    ) -> Path:
        folder = self.folder / stage
        train(
            objective,
            examples,
            config,
            folder / "checkpoints",
            identity={**self._identity(), "config": self._settings(stage), **about},
            completed=self._completed,
            observer=self.observe(stage, folder),
        )
        return folder

    def _encode_views(
        self,
        stage: Stage,
        write: Callable[..., None],
        encode: Callable[[range], Any],
        about: dict[str, Any],
    ) -> Path:
        """Encode each view of each picture once; see `write_shards`."""
        folder, total = self.folder / stage, len(self.pictures) * self.recipe.data.views
        observer = self.observe(stage, folder)
        observer.start(0, total)
        try:
            write(folder, total, encode, about=about, advance=observer.advance)
        finally:
            observer.stop()
        return folder

    def _take(
        self, stage: Stage, model: nn.Module, training: TrainingConfig, *, bundle: Bundle, hint: str
    ) -> Path:
        """Put a bundle's model where a trained one would be."""
        folder, shape = self.folder / stage, to_dict(getattr(self.recipe, stage))
        difference = first_difference(to_dict(model.config), shape)
        if difference:
            field, theirs, ours = difference
            raise ConfigError(
                f"{stage}.{field}",
                got=ours,
                expected=f"{theirs!r}, as in the bundle {bundle.name}",
                hint=hint,
            )
        about = {
            **self._identity(),
            "images_seen": training.num_images,
            "taken_from": {
                "stage": stage,
                "bundle": bundle.name,
                "about": bundle.manifest.get("about"),
            },
        }
        tensors = {f"average/{name}": tensor for name, tensor in model.state_dict().items()}
        checkpoint = Checkpoint(tensors, about)
        save_checkpoint(folder / "checkpoints", training.num_images, checkpoint, keep=1)
        return folder

    def _check_begun(self, stage: Stage, source: Stage, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with a stage that began from another result of an earlier one."""
        folder = self.folder / stage
        begun = load_newest(folder / "checkpoints", lambda _: None)  # `train` speaks of damage
        if begun is not None:
            check_source(folder, begun.about, source, checkpoint)

    def _trained(
        self, stage: Stage, model: Any, config: TrainingConfig
    ) -> tuple[Any, dict[str, Any]]:
        """A model with the averaged parameters of a finished stage, and its checkpoint's about."""
        checkpoint = load_newest(self.folder / stage / "checkpoints", self.message)
        if checkpoint is None or checkpoint.about["images_seen"] < config.num_images:
            raise self._not_done(stage)
        state = {
            name.removeprefix("average/"): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith("average/")
        }
        model.load_state_dict(state)
        return model.to(self.device).eval().requires_grad_(False), checkpoint.about

    def _done(self, path: Path, stage: Stage) -> Path:
        if not path.exists():
            raise self._not_done(stage)
        return path

    def _not_done(self, stage: Stage) -> UsageError:
        return UsageError(
            f"the stage {stage} of {self.folder} is not done", hint=f"run --stage {stage} first"
        )

    # What decides a run

    def _identity(self) -> dict[str, Any]:
        return {"config": to_dict(self.recipe), "version": version(), "commit": commit()}

    def _begin(self, stage: Stage) -> None:
        """Record what decides a stage, or check that it and those before it began the same way."""
        path = self.folder / "recipe.json"
        begun = _read_begun(path)
        for name in self.stages[: self.stages.index(stage) + 1]:
            if name not in begun or not self._has_left(name):
                continue
            difference = first_difference(self._completed(begun[name]), self._settings(name))
            if difference:
                field, before, now = difference
                raise CheckpointError(
                    f"the stage {name} of {self.folder} began under other settings: {field}",
                    got=now,
                    expected=repr(before),
                    hint="choose another --out, give the same options as before, or remove "
                    f"{self._result(name)} to begin this stage anew",
                )
        write_json(path, {**begun, stage: self._settings(stage)})

    def _result(self, stage: Stage) -> Path:
        return self.folder / ("tokenizer.json" if stage == "tokenizer" else stage)

    def _has_left(self, stage: Stage) -> bool:
        """Whether a stage has come to a result, or to a part of one that it would go on with."""
        result = self._result(stage)
        if stage == "tokenizer":
            return result.exists()
        notes = (result / "about.json", result / "manifest.json")
        return bool(list_checkpoints(result / "checkpoints")) or any(n.exists() for n in notes)

    def _completed(self, begun: Any) -> Any:
        """What a stage began under, with the defaults of fields that recipes did not have then."""
        if not isinstance(begun, dict):
            return begun
        try:
            recipe = from_dict(type(self.recipe), {**to_dict(self.recipe), **begun})
        except UsageError:  # of another shape: the caller says where it differs
            return begun
        config = to_dict(recipe)
        return {name: config[name] for name in begun}

    def _settings(self, stage: Stage) -> dict[str, Any]:
        """The fields of the recipe that decide a stage's result."""
        config = to_dict(self.recipe)
        return {name: config[name] for name in self.decided_by[stage]}


def seeded(seed: int, build: Callable[[], nn.Module]) -> Any:
    """Build a model whose initial parameters are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold("initial parameters", seed))
        return build()


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


def check_source(
    folder: Path, about: dict[str, Any], source: Stage, checkpoint: dict[str, Any]
) -> None:
    """Refuse what was made with another model than a run now has.

    Args:
        folder: What was made.
        about: What it says of itself; what does not name its source is taken as it is.
        source: The stage of the model.
        checkpoint: What the model's checkpoint says of itself.

    Raises:
        CheckpointError: It was.
    """
    if about.get(source, checkpoint["sha256"]) != checkpoint["sha256"]:
        raise CheckpointError(
            f"{folder} was made with another {source} than the run now has",
            hint="remove this folder to start this stage anew",
        )


def _read_begun(path: Path) -> dict[str, Any]:
    """For each stage that has begun the fields that decide it."""
    try:
        begun = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        begun = None
    if not isinstance(begun, dict) or not all(isinstance(of, dict) for of in begun.values()):
        hint = "remove it and give the same options as before; checkpoints know theirs"
        raise CheckpointError(f"{path} is damaged", hint=hint)
    return begun


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; a process that ends, however it does, lets go."""
    path = folder / ".lock"
    try:
        file = path.open("a")
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        try:  # unlike flock's, this lock is not handed down to the processes that load data
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is at work in {folder}",
                hint="wait for its end, or choose another --out",
            ) from error
        except OSError as error:
            raise output_error(path, error) from error
        yield


def _is_bundle_of(folder: Path, made_from: dict[str, str]) -> bool:
    """Whether a folder holds a whole bundle of these files."""
    try:
        return open_bundle(folder).manifest["about"].get("made_from") == made_from
    except BundleError:
        return False
