"""DALL·E 1 from captioned pictures to a bundle, stage by stage.

    tokenizer → autoencoder → codes → transformer → bundle

Each stage leaves its result in the run's folder and does nothing where that result is whole, so an
interrupted run goes on where it was:

    RUN/recipe.json       for each stage that has begun, the fields of the recipe that decide it
    RUN/tokenizer.json    stage 1
    RUN/autoencoder/      stage 2: checkpoints/, metrics.jsonl, previews/
    RUN/codes/            stage 3: each picture encoded once
    RUN/transformer/      stage 4: checkpoints/, metrics.jsonl, previews/
    RUN/bundle/           stage 5: what `armchair generate --model` reads
    RUN/.lock             held by the process that runs
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from armchair.core.config import first_difference, to_dict
from armchair.core.device import autocast, resolve_precision
from armchair.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    UsageError,
)
from armchair.core.files import make_folder, output_error, sha256, write_json
from armchair.core.images import to_tensor
from armchair.core.provenance import commit, hardware, today, version
from armchair.core.random import fold
from armchair.data.code_store import CodeStore, Encoded, write_codes
from armchair.data.sources import DataConfig, open_data
from armchair.data.transforms import center_crop
from armchair.data.types import CaptionedPictures
from armchair.models.autoencoders.dvae import DiscreteVAEConfig
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.vqvae import VQVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.bundle import find_bundle, open_bundle
from armchair.pipelines.card import model_card
from armchair.pipelines.dalle1 import DALLE1, build_autoencoder
from armchair.text.tokenizer import Tokenizer, TokenizerConfig
from armchair.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from armchair.training.examples import CaptionedCodes, PictureExamples, cut_captions, view
from armchair.training.loop import Interrupted, TrainingConfig, train
from armchair.training.objective import Objective
from armchair.training.objectives import autoencoder_objective
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig
from armchair.training.objectives.text_to_image import (
    TextToImageLossConfig,
    TextToImageObjective,
)
from armchair.training.objectives.vqvae import VQVAELossConfig
from armchair.training.observers import Observer

Stage = Literal["tokenizer", "autoencoder", "codes", "transformer", "bundle"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_SCENES_LICENCE = "Apache-2.0"
_AUTOENCODER = (
    "data",
    "autoencoder",
    "autoencoder_loss",
    "autoencoder_training",
    "augment",
    "autoencoder_from",
)
_TRANSFORMER = ("tokenizer", "transformer", "transformer_loss", "transformer_training")
_DECIDED_BY: dict[Stage, tuple[str, ...]] = {
    "tokenizer": ("data", "tokenizer"),
    "autoencoder": _AUTOENCODER,
    "codes": _AUTOENCODER,
    "transformer": _AUTOENCODER + _TRANSFORMER,
    "bundle": _AUTOENCODER + _TRANSFORMER,
}


@dataclass(frozen=True, kw_only=True)
class DALLE1Recipe:
    """Everything that decides what a run makes.

    Attributes:
        name: The recipe's name.
        description: What the model card says of the model.
        data: The pictures.
        tokenizer: How captions become tokens.
        autoencoder: The first stage's shape: a discrete VAE, or a VQ-VAE.
        autoencoder_loss: Its loss, of the same kind.
        autoencoder_training: How it is trained.
        augment: Crop, shrink and flip the autoencoder's pictures at random.
        autoencoder_from: A bundle whose autoencoder is taken as it is, by name or path, instead of
            training one; `autoencoder` then says the same shape as the bundle.
        transformer: The second stage's shape.
        transformer_loss: Its loss.
        transformer_training: How it is trained.
    """

    name: str
    description: str = ""
    data: DataConfig
    tokenizer: TokenizerConfig
    autoencoder: DiscreteVAEConfig | VQVAEConfig
    autoencoder_loss: DiscreteVAELossConfig | VQVAELossConfig
    autoencoder_training: TrainingConfig
    augment: bool = True
    autoencoder_from: str | None = None
    transformer: TextToImageConfig
    transformer_loss: TextToImageLossConfig
    transformer_training: TrainingConfig

    def __post_init__(self) -> None:
        of_dvae = isinstance(self.autoencoder, DiscreteVAEConfig)
        if of_dvae != isinstance(self.autoencoder_loss, DiscreteVAELossConfig):
            raise ConfigError(
                "autoencoder_loss",
                got=type(self.autoencoder_loss).__name__,
                expected=f"the loss of a {type(self.autoencoder).__name__}",
            )
        wanted = {
            "text_vocab_size": ("tokenizer.vocab_size", self.tokenizer.vocab_size),
            "text_length": ("tokenizer.context_length", self.tokenizer.context_length),
            "image_vocab_size": ("autoencoder.codebook_size", self.autoencoder.codebook_size),
            "grid_size": ("the autoencoder's grid", self.autoencoder.grid_size),
        }
        for name, (source, value) in wanted.items():
            if getattr(self.transformer, name) != value:
                raise ConfigError(
                    f"transformer.{name}",
                    got=getattr(self.transformer, name),
                    expected=f"{value}, as {source}",
                )


class DALLE1Run:
    """A run of a recipe in a folder.

    Args:
        recipe: What to train.
        folder: Where; made if it is not there.
        device: Where to compute.
        observe: Gives the observer of a stage, by its name and folder; asked once a stage.
        message: Told what a person should know and no observer is there to hear.
        command: What was typed, for the model card.

    Raises:
        OutputError: The folder cannot be written to.
    """

    def __init__(
        self,
        recipe: DALLE1Recipe,
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

    def run(self, stage: Stage | None = None) -> Path:
        """Walk the stages that are not done; or do one, whose predecessors must be done.

        Returns:
            The folder or file of the last stage.

        Raises:
            CheckpointError: A stage began under other settings, or with another autoencoder.
            UsageError: An earlier stage is not done, or another process runs in this folder.
            Interrupted: Ctrl-C; what was done is saved.
        """
        result = self.folder
        with _locked(self.folder):
            for name in STAGES if stage is None else (stage,):
                self._begin(name)
                try:
                    result = getattr(self, f"_{name}")()
                except KeyboardInterrupt as stop:
                    raise Interrupted(
                        f"stopped in the stage {name}",
                        hint="run the same command again to go on from there",
                    ) from stop
        return result

    # The stages

    def _tokenizer(self) -> Path:
        path = self.folder / "tokenizer.json"
        if not path.exists():
            tokenizer = Tokenizer.train(self._captions(), self.recipe.tokenizer)
            if warning := cut_captions(self._captions(), tokenizer):
                self.message(f"tokenizer: {warning}")
            tokenizer.save(path)
        return path

    def _captions(self) -> Iterator[str]:
        return (c for index in range(len(self.pictures)) for c in self.pictures.captions(index))

    def _autoencoder(self) -> Path:
        recipe = self.recipe
        if recipe.autoencoder_from is not None:
            return self._take_autoencoder(recipe.autoencoder_from)
        model = _seeded(recipe.autoencoder_training.seed, self._build_autoencoder)
        objective = autoencoder_objective(model, self.validation_images, recipe.autoencoder_loss)
        examples = PictureExamples(
            self.pictures,
            size=recipe.autoencoder.image_size,
            seed=recipe.autoencoder_training.seed,
            augment=recipe.augment,
        )
        return self._train("autoencoder", objective, examples, recipe.autoencoder_training)

    def _take_autoencoder(self, source: str) -> Path:
        """Copy a bundle's autoencoder to where a trained one would be; once, as bundles change."""
        folder = self.folder / "autoencoder"
        if list_checkpoints(folder / "checkpoints"):
            return folder
        bundle = open_bundle(find_bundle(source))
        model = DALLE1.load(bundle, torch.device("cpu")).autoencoder
        difference = first_difference(to_dict(model.config), to_dict(self.recipe.autoencoder))
        if difference:
            field, theirs, ours = difference
            raise ConfigError(
                f"autoencoder.{field}",
                got=ours,
                expected=f"{theirs!r}, as in the bundle {bundle.name}",
                hint="give the autoencoder the bundle's shape, or train one: leave out "
                "--autoencoder-from",
            )
        about = {
            **self._identity(),
            "images_seen": self.recipe.autoencoder_training.num_images,
            "taken_from": {"bundle": bundle.name, "about": bundle.manifest.get("about")},
        }
        tensors = {f"average/{name}": tensor for name, tensor in model.state_dict().items()}
        checkpoint = Checkpoint(tensors, about)
        save_checkpoint(folder / "checkpoints", about["images_seen"], checkpoint, keep=1)
        return folder

    def _codes(self) -> Path:
        folder = self.folder / "codes"
        model, checkpoint = self._trained_autoencoder()
        total = len(self.pictures) * self.recipe.data.views
        about = {
            "recipe": to_dict(self.recipe.autoencoder),
            "data": to_dict(self.recipe.data),
            "autoencoder": checkpoint["sha256"],
        }
        observer = self.observe("codes", folder)
        observer.start(0, total)
        try:
            write_codes(
                folder,
                total,
                lambda indices: self._encode(model, indices),
                about=about,
                advance=observer.advance,
            )
        finally:
            observer.stop()
        return folder

    def _transformer(self) -> Path:
        recipe = self.recipe
        seed = recipe.transformer_training.seed
        autoencoder, checkpoint = self._trained_autoencoder()
        codes = CodeStore(self._done(self.folder / "codes" / "manifest.json", "codes").parent)
        _check_autoencoder(self.folder / "codes", codes.about, checkpoint)
        folder = self.folder / "transformer"
        begun = load_newest(folder / "checkpoints", lambda _: None)  # `train` speaks of damage
        if begun is not None:
            _check_autoencoder(folder, begun.about, checkpoint)
        model = _seeded(seed, lambda: TextToImageTransformer(recipe.transformer))
        validation_codes, validation_text = self._validation_codes(autoencoder)
        objective = TextToImageObjective(
            model.to(self.device),
            recipe.transformer_loss,
            text=validation_text,
            codes=validation_codes,
            decode=lambda codes: autoencoder.decode(codes).float(),
        )
        examples = CaptionedCodes(
            codes, self.text_tokenizer, seed=seed, dropout=recipe.tokenizer.dropout
        )
        return self._train(
            "transformer",
            objective,
            examples,
            recipe.transformer_training,
            autoencoder=checkpoint["sha256"],
        )

    def _bundle(self) -> Path:
        recipe, folder = self.recipe, self.folder / "bundle"
        autoencoder, first = self._trained_autoencoder()
        transformer, second = self._trained(
            "transformer", TextToImageTransformer(recipe.transformer), recipe.transformer_training
        )
        _check_autoencoder(self.folder / "transformer", second, first)
        made_from = {
            "tokenizer": sha256(self.folder / "tokenizer.json"),
            "autoencoder": first["sha256"],
            "transformer": second["sha256"],
        }
        if _is_bundle_of(folder, made_from):
            return folder
        about = {
            "recipe": {**self._identity(), **_made_by(second)},
            "description": recipe.description,
            "command": self.command,
            "pictures": len(self.pictures),
            "made_from": made_from,
            **({"licence": _SCENES_LICENCE} if recipe.data.source == "scenes" else {}),
            **({"taken_from": first["taken_from"]} if "taken_from" in first else {}),
            "hardware": hardware(self.device),
            "date": today(),
        }
        pipeline = DALLE1(self.text_tokenizer, autoencoder, transformer)
        pipeline.save(folder, about=about, card=model_card(recipe.name, about, None))
        return folder

    # What the stages need

    def open_data(
        self, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[CaptionedPictures, CaptionedPictures]:
        """Training and validation pictures; a folder's are checked once, with (done, total)."""
        if self._data is None:
            self._data = open_data(
                self.recipe.data,
                image_size=self.recipe.autoencoder.image_size,
                rejected=self.folder / "rejected.jsonl",
                on_progress=on_progress,
            )
        return self._data

    @property
    def pictures(self) -> CaptionedPictures:
        """The training pictures."""
        return self.open_data()[0]

    @cached_property
    def validation_images(self) -> Tensor:
        """Pictures that are never trained on, B 3 H W in [-1, 1]."""
        pictures = self.open_data()[1]
        count = min(len(pictures), self.recipe.data.num_validation)
        if not count:
            raise DataError("no pictures are left for validation", hint="add more pictures")
        size = self.recipe.autoencoder.image_size
        return to_tensor(np.stack([center_crop(pictures.pixels(i), size) for i in range(count)]))

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """The trained tokenizer."""
        return Tokenizer.load(self._done(self.folder / "tokenizer.json", "tokenizer"))

    def _build_autoencoder(self) -> ImageTokenizer:
        model = build_autoencoder(self.recipe.autoencoder)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _train(
        self,
        stage: Stage,
        objective: Objective,
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
            observer=self.observe(stage, folder),
        )
        return folder

    def _trained(
        self, stage: Stage, model: Any, config: TrainingConfig
    ) -> tuple[Any, dict[str, Any]]:
        """A model with the averaged parameters of a finished stage, and its checkpoint's about."""
        checkpoint = load_newest(self.folder / stage / "checkpoints", self.message)
        if checkpoint is None or checkpoint.about["images_seen"] < config.num_images:
            raise UsageError(
                f"the stage {stage} of {self.folder} is not done", hint=f"run --stage {stage} first"
            )
        state = {
            name.removeprefix("average/"): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith("average/")
        }
        model.load_state_dict(state)
        return model.to(self.device).eval().requires_grad_(False), checkpoint.about

    def _trained_autoencoder(self) -> tuple[ImageTokenizer, dict[str, Any]]:
        model = self._build_autoencoder()
        return self._trained("autoencoder", model, self.recipe.autoencoder_training)

    def _done(self, path: Path, stage: Stage) -> Path:
        if not path.exists():
            raise UsageError(
                f"the stage {stage} of {self.folder} is not done", hint=f"run --stage {stage} first"
            )
        return path

    def _encode(self, model: ImageTokenizer, indices: range) -> Encoded:
        """Codes and captions of views: view v of picture i is number v·pictures + i."""
        size, codes, captions = self.recipe.autoencoder.image_size, [], []
        for start in range(indices.start, indices.stop, 64):
            views = []
            for number in range(start, min(start + 64, indices.stop)):
                views.append(view(self.pictures, number, size=size, seed=self.recipe.data.seed))
                captions.append(self.pictures.captions(number % len(self.pictures)))
            codes.append(self._encode_images(model, to_tensor(np.stack(views))).numpy())
        return np.concatenate(codes), captions

    @torch.no_grad()
    def _encode_images(self, model: ImageTokenizer, images: Tensor) -> Tensor:
        images = images.to(self.device, memory_format=torch.channels_last)
        with autocast(self.device, self._dtype):
            return model.encode(images).cpu()

    @property
    def _dtype(self) -> torch.dtype:
        return resolve_precision(self.recipe.autoencoder_training.precision, self.device)

    def _validation_codes(self, model: ImageTokenizer) -> tuple[Tensor, Tensor]:
        codes = torch.cat([self._encode_images(model, b) for b in self.validation_images.split(64)])
        captions = [self.open_data()[1].captions(index)[0] for index in range(len(codes))]
        text = self.text_tokenizer.encode_batch(captions, truncate=True)
        return codes, torch.from_numpy(text)

    def _identity(self) -> dict[str, Any]:
        return {"config": to_dict(self.recipe), "version": version(), "commit": commit()}

    def _begin(self, stage: Stage) -> None:
        """Record what decides a stage, or check that it and those before it began the same way."""
        path = self.folder / "recipe.json"
        begun = json.loads(path.read_text("utf-8")) if path.exists() else {}
        for name in STAGES[: STAGES.index(stage) + 1]:
            difference = first_difference(begun.get(name), self._settings(name))
            if name in begun and difference:
                field, before, now = difference
                raise CheckpointError(
                    f"the stage {name} of {self.folder} began under other settings: {field}",
                    got=now,
                    expected=repr(before),
                    hint="choose another --out, or give the same options as before",
                )
        write_json(path, {**begun, stage: self._settings(stage)})

    def _settings(self, stage: Stage) -> dict[str, Any]:
        """The fields of the recipe that decide a stage's result."""
        config = to_dict(self.recipe)
        return {name: config[name] for name in _DECIDED_BY[stage]}


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


def _check_autoencoder(folder: Path, about: dict[str, Any], autoencoder: dict[str, Any]) -> None:
    """Refuse what was made with another autoencoder; what does not say is taken as it is."""
    if about.get("autoencoder", autoencoder["sha256"]) != autoencoder["sha256"]:
        raise CheckpointError(
            f"{folder} was made with another autoencoder than the run now has",
            hint="remove this folder to start this stage anew",
        )


def _made_by(about: dict[str, Any]) -> dict[str, Any]:
    """The program that trained a checkpoint, which may be older than the one that bundles it."""
    return {name: about[name] for name in ("version", "commit")}


def _is_bundle_of(folder: Path, made_from: dict[str, str]) -> bool:
    """Whether a folder holds a whole bundle of these files."""
    try:
        return open_bundle(folder).manifest["about"].get("made_from") == made_from
    except BundleError:
        return False


def _seeded(seed: int, build: Callable[[], nn.Module]) -> Any:
    """Build a model whose initial parameters are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold("initial parameters", seed))
        return build()


def with_training(recipe: DALLE1Recipe, **changes: Any) -> DALLE1Recipe:
    """The same recipe with fields of both stages' `TrainingConfig` replaced, such as the seed."""
    return dataclasses.replace(
        recipe,
        autoencoder_training=dataclasses.replace(recipe.autoencoder_training, **changes),
        transformer_training=dataclasses.replace(recipe.transformer_training, **changes),
    )
