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

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from armchair.core.errors import BundleError, UnknownNameError, UsageError
from armchair.core.files import locked, make_folder, sha256
from armchair.core.provenance import hardware, today
from armchair.core.random import fold
from armchair.pipelines.bundle import Bundle, open_bundle
from armchair.pipelines.card import model_card
from armchair.text.tokenizer import Tokenizer
from armchair.training.checkpoint import (
    Checkpoint,
    as_average,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from armchair.training.examples import Wordings, check_captions
from armchair.training.loop import Interrupted, TrainingConfig, train
from armchair.training.objective import Objective
from armchair.training.observers import Observer
from armchair.training.recipe import WITHOUT_TRAINING, AnyRecipe, Stage
from armchair.training.run_data import RunData
from armchair.training.run_record import RunRecord, check_source
from armchair.training.start import Start, check_shape, check_start

_SCENES_LICENCE = "Apache-2.0"


@runtime_checkable
class Savable(Protocol):
    """A model that can be written as a bundle."""

    def save(self, folder: Path, *, about: dict[str, Any], card: str) -> Bundle:
        """Write it; see `write_bundle`."""
        ...


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
        data: The pictures.

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
        self.folder = make_folder(folder)
        self.device = device
        self.observe = observe
        self.message = message
        self.command = command
        self.data = RunData(
            recipe.data, image_size=self.image_size, folder=self.folder, message=message
        )
        self._record = RunRecord(recipe, self.folder, self.decided_by)

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
        with locked(self.folder):
            self._check_given()
            for name in self.stages if stage is None else (stage,):
                self._record.begin(name, self.stages)
                try:
                    result = getattr(self, f"_{name}")()
                except KeyboardInterrupt as stop:
                    raise Interrupted(
                        f"stopped in the stage {name}",
                        hint="run the same command again to go on from there",
                    ) from stop
        return result

    def _check_given(self) -> None:
        """Refuse what is to be taken from elsewhere and does not fit, before any work is done."""
        trained: list[Stage] = [
            stage
            for stage in self.stages
            if stage not in WITHOUT_TRAINING and getattr(self.recipe, f"{stage}_from", None) is None
        ]
        waiting: list[Stage] = [
            stage for stage in trained if not list_checkpoints(self.folder / stage / "checkpoints")
        ]
        check_start(self.recipe, self._start, trained, waiting)

    # Text

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """The trained tokenizer."""
        return Tokenizer.load(self._done(self.folder / "tokenizer.json", "tokenizer"))

    @cached_property
    def validation_text(self) -> Int64[Tensor, "N T"]:
        """A caption of each picture that is never trained on, in tokens."""
        captions = self.data.validation_captions()
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
            tokenizer, warning = self._make_tokenizer()
            if warning:
                self.message(f"tokenizer: {warning}")
            tokenizer.save(path)
        return path

    def _make_tokenizer(self) -> tuple[Tokenizer, str | None]:
        """A tokenizer that all captions fit, or are cut to: then it says how many are."""
        given = self._given_tokenizer()
        num_readings = 1 if given else 2  # to learn from, and to check
        observer = self.observe("tokenizer", self.folder)
        observer.start(0, len(self.data.pictures))
        try:
            tokenizer = given or self._train_tokenizer(self._captions(observer, 0, num_readings))
            captions = self._captions(observer, num_readings - 1, num_readings)
            return tokenizer, check_captions(captions, tokenizer, truncate=self.recipe.truncate)
        finally:
            observer.stop()

    def _given_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of what a run takes from elsewhere, if it takes one.

        Raises:
            ConfigError: It is not what the recipe says.
        """
        return None if self._start is None else self._start.tokenizer(self.recipe)

    def _train_tokenizer(self, captions: Iterator[str]) -> Tokenizer:
        assert self.recipe.tokenizer is not None
        return Tokenizer.train(captions, self.recipe.tokenizer)

    def _captions(self, observer: Observer, reading: int, num_readings: int) -> Iterator[str]:
        """Every caption of the training pictures; the observer hears how far all readings are."""
        pictures = self.data.pictures
        for index in range(len(pictures)):
            yield from pictures.captions(index)
            observer.advance((reading * len(pictures) + index + 1) // num_readings)

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
        if recipe.start_from is not None:
            about["started_from"] = Path(recipe.start_from).name  # a path may be private
        about = {
            "recipe": {**self._record.identity(), **made_by},
            "description": recipe.description,
            "command": self.command,
            "pictures": len(self.data.pictures),
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
            identity={
                **self._record.identity(),
                "config": self._record.settings(stage),
                "fingerprint": self.data.fingerprint,
                **about,
            },
            completed=self._record.completed,
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
        about = {**about, "fingerprint": self.data.fingerprint}
        folder, total = self.folder / stage, len(self.data.pictures) * self.recipe.data.views
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
        folder = self.folder / stage
        check_shape(stage, model, self.recipe, bundle=bundle, hint=hint)
        about = {
            **self._record.identity(),
            "images_seen": training.num_images,
            "taken_from": {
                "stage": stage,
                "bundle": bundle.name,
                "about": bundle.manifest.get("about"),
            },
        }
        tensors = as_average(model.state_dict())
        checkpoint = Checkpoint(tensors, about)
        save_checkpoint(folder / "checkpoints", training.num_images, checkpoint, keep=1)
        return folder

    @cached_property
    def _start(self) -> Start | None:
        source = self.recipe.start_from
        return None if source is None else Start(source)

    def _begun_with(self, stage: Stage) -> nn.Module | None:
        """The network that a stage begins with; None where it begins anew, or goes on."""
        if self._start is None or list_checkpoints(self.folder / stage / "checkpoints"):
            return None
        return self._start.network(stage, self.recipe)

    def new(self, stage: Stage, training: TrainingConfig, build: Callable[[], nn.Module]) -> Any:
        """A network to train: as it is in the bundle to start from, or as the seed decides."""
        model = seeded(training.seed, build)
        if (begun := self._begun_with(stage)) is not None:
            model.load_state_dict(begun.state_dict())
        return model.to(self.device)

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
        model.load_state_dict(checkpoint.average)
        return model.to(self.device).eval().requires_grad_(False), checkpoint.about

    def _done(self, path: Path, stage: Stage) -> Path:
        if not path.exists():
            raise self._not_done(stage)
        return path

    def _not_done(self, stage: Stage) -> UsageError:
        return UsageError(
            f"the stage {stage} of {self.folder} is not done", hint=f"run --stage {stage} first"
        )


def seeded(seed: int, build: Callable[[], nn.Module]) -> Any:
    """Build a model whose initial parameters are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold("initial parameters", seed))
        return build()


def _is_bundle_of(folder: Path, made_from: dict[str, str]) -> bool:
    """Whether a folder holds a whole bundle of these files."""
    try:
        return open_bundle(folder).manifest["about"].get("made_from") == made_from
    except BundleError:
        return False
