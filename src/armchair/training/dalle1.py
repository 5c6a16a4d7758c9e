"""DALL·E 1 from captioned pictures to a bundle, stage by stage.

    tokenizer → autoencoder → codes → transformer → bundle

In the run's folder, besides what every run leaves there (see `armchair.training.run`):

    RUN/autoencoder/      stage 2: training
    RUN/codes/            stage 3: each picture encoded once
    RUN/transformer/      stage 4: training
    RUN/bundle/           stage 5: what `armchair generate --model` reads
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from armchair.core.config import to_dict
from armchair.core.device import autocast, resolve_precision
from armchair.core.errors import ConfigError
from armchair.core.images import to_tensor
from armchair.core.schedules import Schedule
from armchair.data.code_store import CodeStore, Encoded, write_codes
from armchair.data.sources import DataConfig
from armchair.models.autoencoders.dvae import DiscreteVAEConfig
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.vqvae import VQVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.bundle import Bundle, open_bundle
from armchair.pipelines.bundle_search import find_bundle
from armchair.pipelines.dalle1 import DALLE1, build_autoencoder, check_fit
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.checkpoint import list_checkpoints
from armchair.training.examples import (
    CaptionedCodes,
    PictureExamples,
    check_wordings,
    view,
)
from armchair.training.loop import TrainingConfig
from armchair.training.objectives import autoencoder_objective
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig
from armchair.training.objectives.text_to_image import (
    TextToImageLossConfig,
    TextToImageObjective,
)
from armchair.training.objectives.vqvae import VQVAELossConfig
from armchair.training.recipe import Stage
from armchair.training.run import Run
from armchair.training.run_record import check_source
from armchair.training.start import check_shape

_AUTOENCODER = (
    "data",
    "autoencoder",
    "autoencoder_loss",
    "autoencoder_training",
    "augment",
    "autoencoder_from",
    "start_from",
)
_TRANSFORMER = (
    "tokenizer",
    "transformer",
    "transformer_loss",
    "transformer_training",
    "wordings",
)
_GIVEN_HINT = "give the autoencoder the bundle's shape, or train one: leave out --autoencoder-from"
_DECIDED_BY: Mapping[Stage, tuple[str, ...]] = {
    "tokenizer": ("data", "tokenizer", "start_from"),
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
        truncate: Cut captions that are longer than the tokenizer's text, instead of refusing them.
        autoencoder: The first stage's shape: a discrete VAE, or a VQ-VAE.
        autoencoder_loss: Its loss, of the same kind.
        autoencoder_training: How it is trained.
        augment: Crop, shrink and flip the autoencoder's pictures at random.
        autoencoder_from: A bundle whose autoencoder is taken as it is, by name or path, instead of
            training one; `autoencoder` then says the same shape as the bundle.
        start_from: A bundle, by name or path, whose networks are trained further, with its
            tokenizer; what is said of their shapes is then the same as in the bundle. Those that it
            lacks begin anew.
        transformer: The second stage's shape.
        transformer_loss: Its loss.
        transformer_training: How it is trained.
        wordings: Share of each picture's captions, from the first on, that the transformer is
            trained with, as a function of progress: a data set that tells the plain ones first can
            be learnt from those first.
    """

    name: str
    description: str = ""
    data: DataConfig
    tokenizer: TokenizerConfig
    truncate: bool = False
    autoencoder: DiscreteVAEConfig | VQVAEConfig
    autoencoder_loss: DiscreteVAELossConfig | VQVAELossConfig
    autoencoder_training: TrainingConfig
    augment: bool = True
    autoencoder_from: str | None = None
    start_from: str | None = None
    transformer: TextToImageConfig
    transformer_loss: TextToImageLossConfig
    transformer_training: TrainingConfig
    wordings: Schedule = Schedule.of(1.0)

    def __post_init__(self) -> None:
        of_dvae = isinstance(self.autoencoder, DiscreteVAEConfig)
        if of_dvae != isinstance(self.autoencoder_loss, DiscreteVAELossConfig):
            raise ConfigError(
                "autoencoder_loss",
                got=type(self.autoencoder_loss).__name__,
                expected=f"the loss of a {type(self.autoencoder).__name__}",
            )
        check_wordings(self.wordings)
        check_fit(self.tokenizer, self.autoencoder, self.transformer)


class DALLE1Run(Run[DALLE1Recipe]):
    """A run of a DALL·E 1."""

    decided_by = _DECIDED_BY

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels."""
        return self.recipe.autoencoder.image_size

    # The stages

    def _autoencoder(self) -> Path:
        recipe = self.recipe
        if recipe.autoencoder_from is not None:
            return self._take_autoencoder(recipe.autoencoder_from)
        training = recipe.autoencoder_training
        model = self.new("autoencoder", training, self._build_autoencoder)
        objective = autoencoder_objective(
            model, self.data.validation_images(self.image_size), recipe.autoencoder_loss
        )
        examples = PictureExamples(
            self.data.pictures,
            size=recipe.autoencoder.image_size,
            seed=training.seed,
            augment=recipe.augment,
        )
        return self._train("autoencoder", objective, examples, training)

    def _take_autoencoder(self, source: str) -> Path:
        """Copy a bundle's autoencoder to where a trained one would be; once, as bundles change."""
        folder = self.folder / "autoencoder"
        if list_checkpoints(folder / "checkpoints"):
            return folder
        model, bundle = _given_autoencoder(source)
        training = self.recipe.autoencoder_training
        return self._take("autoencoder", model, training, bundle=bundle, hint=_GIVEN_HINT)

    def _check_given(self) -> None:
        super()._check_given()
        source = self.recipe.autoencoder_from
        if source is None or list_checkpoints(self.folder / "autoencoder" / "checkpoints"):
            return
        model, bundle = _given_autoencoder(source)
        check_shape("autoencoder", model, self.recipe, bundle=bundle, hint=_GIVEN_HINT)

    def _codes(self) -> Path:
        model, checkpoint = self._trained_autoencoder()
        about = {
            "recipe": to_dict(self.recipe.autoencoder),
            "data": to_dict(self.recipe.data),
            "autoencoder": checkpoint["sha256"],
        }
        return self._encode_views(
            "codes", write_codes, lambda indices: self._encode(model, indices), about
        )

    def _transformer(self) -> Path:
        recipe, training = self.recipe, self.recipe.transformer_training
        autoencoder, checkpoint = self._trained_autoencoder()
        codes = CodeStore(self._done(self.folder / "codes" / "manifest.json", "codes").parent)
        check_source(self.folder / "codes", codes.about, "autoencoder", checkpoint)
        self._check_begun("transformer", "autoencoder", checkpoint)
        shape = recipe.transformer
        images = self.data.validation_images(self.image_size).split(64)
        objective = TextToImageObjective(
            self.new("transformer", training, lambda: TextToImageTransformer(shape)),
            recipe.transformer_loss,
            text=self.validation_text,
            codes=torch.cat([self._encode_images(autoencoder, part) for part in images]),
            decode=lambda codes: autoencoder.decode(codes).float(),
        )
        examples = CaptionedCodes(codes, self.wordings(training))
        sha = checkpoint["sha256"]
        return self._train("transformer", objective, examples, training, autoencoder=sha)

    def _bundle(self) -> Path:
        recipe = self.recipe
        autoencoder, first = self._trained_autoencoder()
        transformer, second = self._trained(
            "transformer", TextToImageTransformer(recipe.transformer), recipe.transformer_training
        )
        check_source(self.folder / "transformer", second, "autoencoder", first)
        return self._write_bundle(
            DALLE1(self.text_tokenizer, autoencoder, transformer),
            made_from={"autoencoder": first["sha256"], "transformer": second["sha256"]},
            trained=second,
            **({"taken_from": first["taken_from"]} if "taken_from" in first else {}),
        )

    # What the stages need

    def _build_autoencoder(self) -> ImageTokenizer:
        model = build_autoencoder(self.recipe.autoencoder)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _trained_autoencoder(self) -> tuple[ImageTokenizer, dict[str, Any]]:
        model = self._build_autoencoder()
        return self._trained("autoencoder", model, self.recipe.autoencoder_training)

    def _encode(self, model: ImageTokenizer, indices: range) -> Encoded:
        """Codes and captions of views: view v of picture i is number v·pictures + i."""
        size, codes, captions = self.recipe.autoencoder.image_size, [], []
        pictures, seed = self.data.pictures, self.recipe.data.seed
        for start in range(indices.start, indices.stop, 64):
            views = []
            for number in range(start, min(start + 64, indices.stop)):
                views.append(view(pictures, number, size=size, seed=seed))
                captions.append(pictures.captions(number % len(pictures)))
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


def _given_autoencoder(source: str) -> tuple[ImageTokenizer, Bundle]:
    """The autoencoder of a bundle, and the bundle."""
    bundle = open_bundle(find_bundle(source, field="autoencoder_from"))
    return DALLE1.load(bundle, torch.device("cpu")).autoencoder, bundle
