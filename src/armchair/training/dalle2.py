"""DALL·E 2 from captioned pictures to a bundle, stage by stage; and GLIDE, and DDPM.

    tokenizer → clip → embeddings → prior → decoder → first_upsampler → second_upsampler → bundle

In the run's folder, besides what every run leaves there (see `armchair.training.run`):

    RUN/clip/             stage 2: training, or a bundle's CLIP
    RUN/embeddings/       stage 3: each picture and its captions embedded once
    RUN/prior/            stage 4: training
    RUN/decoder/          stage 5: training
    RUN/first_upsampler/  stage 6: training
    RUN/second_upsampler/ stage 7: training
    RUN/bundle/           stage 8: what `armchair generate --model` reads

What a recipe leaves out has no stage: a GLIDE has no CLIP, and thus no embeddings and no prior, and
a DDPM no captions either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from armchair.core.config import to_dict
from armchair.core.device import autocast, resolve_precision
from armchair.core.errors import CheckpointError, ConfigError
from armchair.core.images import to_tensor
from armchair.data.embedding_store import Embedded, EmbeddingStore, write_embeddings
from armchair.data.sources import at_size
from armchair.models.clip import CLIPModel, embed_images, embed_texts
from armchair.models.priors.autoregressive import AutoregressivePrior
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.unet import UNet, UNetConfig
from armchair.pipelines.bundle import Bundle, open_bundle
from armchair.pipelines.bundle_search import find_bundle
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle2 import DALLE2
from armchair.pipelines.dalle2_config import (
    UPSAMPLERS,
    Prior,
    build_prior,
)
from armchair.sampling.diffusion import DiffusionSampling, measure_errors
from armchair.text.tokenizer import Tokenizer
from armchair.training.checkpoint import list_checkpoints
from armchair.training.clip import CLIP_FIELDS, clip_lesson
from armchair.training.dalle2_recipe import PARTS, DALLE2Recipe, fields_of
from armchair.training.examples import EmbeddedCaptions, Views, view
from armchair.training.loop import TrainingConfig
from armchair.training.objectives import prior_objective
from armchair.training.objectives.diffusion import DiffusionObjective
from armchair.training.recipe import Stage
from armchair.training.run import Run
from armchair.training.run_record import check_source
from armchair.training.start import check_shape, fitting_tokenizer

_FITTED = 20_000  # pictures whose embeddings scales and codes are fitted to
_MEASURED = 512  # pairs that the best variance of a prior's steps is measured on
_GIVEN_HINT = "give clip the bundle's shape, or train one: leave out --clip-from"
_ENLARGED = 64  # validation pictures of an upsampler
_BATCH_SIZE = 64  # pictures embedded at once

_CLIP = (*CLIP_FIELDS, "clip_from")
_DECIDED_BY: Mapping[Stage, tuple[str, ...]] = {
    "tokenizer": ("data", "tokenizer", "clip_from", "start_from"),
    "clip": _CLIP,
    "embeddings": _CLIP,
    "prior": _CLIP + fields_of("prior"),
    "decoder": _CLIP + fields_of("decoder"),
    "first_upsampler": ("data", "start_from", *fields_of("first_upsampler")),
    "second_upsampler": ("data", "start_from", *fields_of("second_upsampler")),
    "bundle": (*_CLIP, *(name for part in PARTS[1:] for name in fields_of(part)), "sampling"),
}


class DALLE2Run(Run[DALLE2Recipe]):
    """A run of a DALL·E 2, or of one without some parts."""

    decided_by = _DECIDED_BY

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels, as large as any stage wants them."""
        clip = self.recipe.clip
        return max(self.recipe.shape.image_size, 0 if clip is None else clip.image_size)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose part is not left out."""
        needs = {"embeddings": "clip"}
        return tuple(
            stage
            for stage in self.decided_by
            if getattr(self.recipe, needs.get(stage, stage), True) is not None
        )

    # Text and CLIP

    def _given_tokenizer(self) -> Tokenizer | None:
        begun_with = super()._given_tokenizer()
        if self.recipe.clip_from is None:
            return begun_with
        clip, bundle = _given_clip(self.recipe.clip_from)
        assert isinstance(clip.tokenizer, Tokenizer)
        tokenizer = fitting_tokenizer(clip.tokenizer, self.recipe, bundle=bundle)
        if begun_with is not None and begun_with.content != tokenizer.content:
            raise ConfigError(
                "start_from",
                got=self.recipe.start_from,
                expected=f"a bundle with the vocabulary of {bundle.name}, which clip_from names",
            )
        return tokenizer

    def _clip(self) -> Path:
        recipe = self.recipe
        assert recipe.clip is not None
        assert recipe.clip_loss is not None
        assert recipe.clip_training is not None
        if recipe.clip_from is not None:
            return self._take_clip(recipe.clip_from, recipe.clip_training)
        objective, examples = clip_lesson(
            self, recipe.clip, recipe.clip_loss, recipe.clip_training, augment=recipe.augment
        )
        return self._train("clip", objective, examples, recipe.clip_training)

    def _take_clip(self, source: str, training: TrainingConfig) -> Path:
        """Copy a bundle's CLIP to where a trained one would be; once, as bundles change."""
        folder = self.folder / "clip"
        if list_checkpoints(folder / "checkpoints"):
            return folder
        clip, bundle = _given_clip(source)
        if clip.tokenizer.content != self.text_tokenizer.content:
            raise CheckpointError(
                f"{self.folder}: tokenizer.json is not that of the bundle {bundle.name}",
                hint="remove it to take the bundle's",
            )
        return self._take("clip", clip.model, training, bundle=bundle, hint=_GIVEN_HINT)

    def _check_given(self) -> None:
        super()._check_given()
        source = self.recipe.clip_from
        if source is None or list_checkpoints(self.folder / "clip" / "checkpoints"):
            return
        clip, bundle = _given_clip(source)
        check_shape("clip", clip.model, self.recipe, bundle=bundle, hint=_GIVEN_HINT)

    def _embeddings(self) -> Path:
        clip, checkpoint = self._trained_clip()
        return self._encode_views(
            "embeddings",
            write_embeddings,
            lambda indices: self._embed(clip, indices),
            {"data": to_dict(self.recipe.data), "clip": checkpoint["sha256"]},
        )

    # What is trained on embeddings and pictures

    def _prior(self) -> Path:
        recipe = self.recipe
        shape, loss, training = recipe.prior, recipe.prior_loss, recipe.prior_training
        assert shape is not None
        assert loss is not None
        assert training is not None
        clip, checkpoint = self._trained_clip()
        store = self._embedding_store(checkpoint)
        self._check_begun("prior", "clip", checkpoint)
        model: Prior = self.new("prior", training, lambda: build_prior(shape))
        images, texts = (torch.from_numpy(rows).to(self.device) for rows in store.pairs(_FITTED))
        if self._begun_with("prior") is None:  # a prior keeps the units that it was fitted to
            if isinstance(model, AutoregressivePrior):
                model.space.fit(images, texts)
            else:
                model.scale.fit(images)
        pictures = self.data.validation_images(clip.config.image_size)
        validation = {
            "images": pictures,
            "image_embedding": self._embed_images(clip, pictures),
            "text": self.validation_text,
            "text_embedding": self._embed_texts(clip, self.validation_text),
        }
        sampling = recipe.sampling.of_prior
        if sampling.sampler == "analytic_dpm":  # measured once the prior is trained
            sampling = replace(sampling, sampler="ddpm")
        objective = prior_objective(model, loss, validation=validation, sampling=sampling)
        examples = EmbeddedCaptions(store, self.wordings(training))
        sha = checkpoint["sha256"]
        return self._train("prior", objective, examples, training, clip=sha)

    def _decoder(self) -> Path:
        recipe = self.recipe
        told: dict[str, Any] = {}
        validation: dict[str, Tensor] = {}
        about: dict[str, str] = {}
        if recipe.decoder.text is not None:
            told["wordings"] = self.wordings(recipe.decoder_training)
            validation["text"] = self.validation_text
        if recipe.clip is not None:
            clip, checkpoint = self._trained_clip()
            self._check_begun("decoder", "clip", checkpoint)
            told["embeddings"] = self._embedding_store(checkpoint)
            pictures = self.data.validation_images(recipe.clip.image_size)
            validation["embedding"] = self._embed_images(clip, pictures)
            about["clip"] = checkpoint["sha256"]
        validation["images"] = self.data.validation_images(recipe.decoder.image_size)
        sampling = recipe.sampling.of_decoder
        return self._train_unet("decoder", told, validation, sampling, about)

    def _first_upsampler(self) -> Path:
        return self._upsampler(0)

    def _second_upsampler(self) -> Path:
        return self._upsampler(1)

    def _upsampler(self, number: int) -> Path:
        stage = UPSAMPLERS[number]
        size = getattr(self.recipe, stage).image_size
        validation = {"images": self.data.validation_images(size, _ENLARGED)}
        return self._train_unet(stage, {}, validation, self.recipe.sampling.of_upsampler(number))

    def _train_unet(
        self,
        stage: Stage,
        told: dict[str, Any],
        validation: dict[str, Tensor],
        sampling: DiffusionSampling,
        about: Mapping[str, str] = {},
    ) -> Path:
        """Train a U-Net.

        Args:
            stage: Which.
            told: What `Views` makes of pictures for it.
            validation: Pictures that are never trained on, with the like.
            sampling: How previews are drawn.
            about: What its checkpoints say of where it came from.
        """
        shape, loss, training = (getattr(self.recipe, name) for name in fields_of(stage))
        model = self.new(stage, training, lambda: self._build_unet(shape))
        objective = DiffusionObjective(model, loss, validation=validation, sampling=sampling)
        size = shape.image_size
        told = {"size": size, "crop_size": loss.crop_size, **told}
        examples = Views(at_size(self.data.pictures, size), self.recipe.data, **told)
        return self._train(stage, objective, examples, training, **about)

    def _bundle(self) -> Path:
        recipe, made_from = self.recipe, dict[str, str]()
        clip = prior = None
        about: dict[str, Any] = {}
        first: dict[str, Any] = {}
        if recipe.clip is not None:
            clip, first = self._trained_clip()
            prior, second = self._trained_prior(clip, first)
            made_from |= {"clip": first["sha256"], "prior": second["sha256"]}
            about = {"taken_from": first["taken_from"]} if "taken_from" in first else {}
        unets: list[UNet] = []
        trained: dict[str, Any] = {}
        for stage in self.stages:
            if stage == "decoder" or stage in UPSAMPLERS:
                shape, _, training = (getattr(recipe, name) for name in fields_of(stage))
                model, trained = self._trained(stage, self._build_unet(shape), training)
                if stage == "decoder" and first:
                    check_source(self.folder / stage, trained, "clip", first)
                unets.append(model)
                made_from[stage] = trained["sha256"]
        tokenizer = None if recipe.tokenizer is None else self.text_tokenizer
        model = DALLE2(tokenizer, clip, prior, unets[0], unets[1:], sampling=recipe.sampling)
        return self._write_bundle(model, made_from=made_from, trained=trained, **about)

    # What the stages need

    def _build_unet(self, shape: UNetConfig) -> UNet:
        return UNet(shape).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _trained_clip(self) -> tuple[CLIPModel, dict[str, Any]]:
        assert self.recipe.clip is not None
        assert self.recipe.clip_training is not None
        return self._trained("clip", CLIPModel(self.recipe.clip), self.recipe.clip_training)

    def _trained_prior(
        self, clip: CLIPModel, checkpoint: dict[str, Any]
    ) -> tuple[Prior, dict[str, Any]]:
        """The prior, which knows the best variance of its steps if it draws with that."""
        recipe = self.recipe
        assert recipe.prior is not None
        assert recipe.prior_training is not None
        model, about = self._trained("prior", build_prior(recipe.prior), recipe.prior_training)
        check_source(self.folder / "prior", about, "clip", checkpoint)
        sampling = recipe.sampling.of_prior
        if isinstance(model, DiffusionPrior) and sampling.sampler == "analytic_dpm":
            store = self._embedding_store(checkpoint)
            images, texts = (torch.from_numpy(rows) for rows in store.pairs(_MEASURED))
            captions = [store.captions(index)[0] for index in range(len(images))]
            text = torch.from_numpy(self.text_tokenizer.encode_batch(captions, truncate=True))
            measure_errors(model, text, texts, images, num_steps=sampling.num_steps)
        return model, about

    def _embedding_store(self, checkpoint: dict[str, Any]) -> EmbeddingStore:
        folder = self.folder / "embeddings"
        path = self._done(folder / "manifest.json", "embeddings").parent
        store = EmbeddingStore(path, views=self.recipe.data.views)
        check_source(folder, store.about, "clip", checkpoint)
        return store

    def _embed(self, clip: CLIPModel, indices: range) -> Embedded:
        """Embeddings of views, and of each picture's captions with its first; see `view`."""
        size, images, texts = clip.config.image_size, [], []
        pictures, captions = at_size(self.data.pictures, size), []
        for start in range(indices.start, indices.stop, _BATCH_SIZE):
            numbers = range(start, min(start + _BATCH_SIZE, indices.stop))
            seed = self.recipe.data.seed
            views = [view(pictures, number, size=size, seed=seed) for number in numbers]
            first = [number for number in numbers if number < len(pictures)]
            wordings = [pictures.captions(number) for number in first]
            images.append(self._embed_images(clip, to_tensor(np.stack(views))).numpy())
            if flat := [caption for of_view in wordings for caption in of_view]:
                tokens = torch.from_numpy(self.text_tokenizer.encode_batch(flat, truncate=True))
                texts.append(self._embed_texts(clip, tokens).numpy())
            captions += wordings + [[] for _ in numbers[len(first) :]]
        nothing = images[0][:0]
        return np.concatenate(images), np.concatenate([nothing, *texts]), captions

    def _embed_images(self, clip: CLIPModel, images: Tensor) -> Tensor:
        with autocast(self.device, self._dtype):
            return embed_images(clip, images).cpu()

    def _embed_texts(self, clip: CLIPModel, text: Tensor) -> Tensor:
        with autocast(self.device, self._dtype):
            return embed_texts(clip, text).cpu()

    @property
    def _dtype(self) -> torch.dtype:
        assert self.recipe.clip_training is not None
        return resolve_precision(self.recipe.clip_training.precision, self.device)


def _given_clip(source: str) -> tuple[CLIP, Bundle]:
    """The CLIP of a bundle, which may be a DALL·E 2's, and the bundle."""
    bundle = open_bundle(find_bundle(source, field="clip_from"))
    clip, device = None, torch.device("cpu")
    if bundle.kind == "dalle2":
        clip = DALLE2.load(bundle, device).clip
    elif bundle.kind == "clip":
        clip = CLIP.load(bundle, device)
    if clip is None or not isinstance(clip.tokenizer, Tokenizer):
        raise ConfigError(
            "clip_from",
            got=source,
            expected="a bundle that has a CLIP with a vocabulary of its own",
            hint="`armchair train clip-scenes` makes one",
        )
    return clip, bundle
