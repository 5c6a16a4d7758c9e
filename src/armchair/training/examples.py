"""What each stage sees: pictures, and captions with codes, with pictures, or with embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from armchair.core.errors import ConfigError, DataError
from armchair.core.images import to_tensor
from armchair.core.random import numpy_generator
from armchair.core.schedules import Schedule
from armchair.data.code_store import CodeStore
from armchair.data.embedding_store import EmbeddingStore
from armchair.data.sources import DataConfig
from armchair.data.transforms import (
    augment_for_autoencoder,
    augment_for_transformer,
    center_crop,
    random_crop,
)
from armchair.data.types import CaptionedPictures, NearMisses
from armchair.text.tokenizer import Tokenizer


class PictureExamples:
    """Pictures of one size as "images" in [-1, 1].

    Args:
        pictures: The data set.
        size: Side in pixels.
        seed: Keys the random crops.
        augment: Crop, shrink and flip at random (appendix A.2, listing 1); pictures that have the
            size already may then be flipped, so a world where left and right matter wants it off.
    """

    def __init__(self, pictures: CaptionedPictures, *, size: int, seed: int, augment: bool) -> None:
        self.pictures = pictures
        self.size = size
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.pictures)

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        """Picture `index`, cropped as position `position` of the run has it."""
        pixels = self.pictures.pixels(index)
        if not self.augment:
            return {"images": to_tensor(center_crop(pixels, self.size))}
        generator = numpy_generator("augment", self.seed, position)
        return {"images": to_tensor(augment_for_autoencoder(pixels, self.size, generator))}


class Wordings:
    """Draws one of a picture's wordings for each position of a run, with its own BPE dropout.

    Args:
        tokenizer: Encodes them, merges left out as its config says; those that are too long, which
            such merges may make them, are cut.
        seed: Keys the choices.
        share: For a position, the share of a picture's wordings, from the first on, that is drawn
            from, in (0, 1]; at least one, and fractions are rounded up.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        seed: int,
        share: Callable[[int], float] = lambda position: 1.0,
    ) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.share = share

    def draw(self, wordings: Sequence[str], position: int) -> tuple[int, Int64[Tensor, " T"]]:
        """The number of the wording that is drawn, and its tokens."""
        generator = numpy_generator("caption", self.seed, position)
        among = max(1, math.ceil(self.share(position) * len(wordings)))
        which = int(generator.integers(among))
        return which, self.encode([wordings[which]], generator)[0]

    def encode(self, texts: Sequence[str], generator: np.random.Generator) -> Int64[Tensor, "N T"]:
        """The tokens of texts, with merges left out by lot."""
        dropout = self.tokenizer.config.dropout
        tokens = self.tokenizer.encode_batch(
            texts, truncate=True, dropout=dropout, generator=generator
        )
        return torch.from_numpy(tokens)


def check_wordings(share: Schedule) -> None:
    """Refuse a recipe's schedule of wordings that is no share of them somewhere."""
    shares = [knot.value for knot in share.knots]
    if any(not 0 < value <= 1 for value in shares):
        raise ConfigError("wordings", got=shares, expected="each above 0, at most 1")


class CaptionedCodes:
    """Captions as "text" and image codes as "codes".

    Args:
        codes: The codes and captions.
        wordings: Draws the captions.
    """

    def __init__(self, codes: CodeStore, wordings: Wordings) -> None:
        self.codes = codes
        self.wordings = wordings

    def __len__(self) -> int:
        return len(self.codes)

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        """The codes of picture `index`, with a wording drawn for position `position`."""
        _, text = self.wordings.draw(self.codes.captions(index), position)
        return {"text": text, "codes": torch.from_numpy(np.asarray(self.codes.codes(index)))}


class CaptionedImages:
    """Captions as "text" and pictures of one size as "images" in [-1, 1].

    Where they are asked for, captions that are nearly true come with them as "near_misses", N T.

    Args:
        pictures: The data set.
        wordings: Draws the captions.
        size: Side of the pictures in pixels.
        seed: Keys the crops.
        augment: Crop and shrink at random, near the centre and without a flip; see
            `augment_for_transformer`.
        near_misses: How many such captions come with each picture, if the data set has them.
    """

    def __init__(
        self,
        pictures: CaptionedPictures,
        wordings: Wordings,
        *,
        size: int,
        seed: int,
        augment: bool,
        near_misses: int = 0,
    ) -> None:
        self.pictures = pictures
        self.wordings = wordings
        self.size = size
        self.seed = seed
        self.augment = augment
        self.near_misses = near_misses

    def __len__(self) -> int:
        return len(self.pictures)

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        """Picture `index`, with a wording and a crop drawn for position `position`."""
        wording, text = self.wordings.draw(self.pictures.captions(index), position)
        example = {"text": text, "images": to_tensor(self._crop(index, position))}
        if self.near_misses and isinstance(self.pictures, NearMisses):
            generator = numpy_generator("near misses", self.seed, position)
            texts = self.pictures.near_misses(index, wording, self.near_misses, generator)
            example["near_misses"] = self.wordings.encode(texts, generator)
        return example

    def _crop(self, index: int, position: int) -> UInt8[np.ndarray, "S S 3"]:
        pixels = self.pictures.pixels(index)
        if not self.augment:
            return center_crop(pixels, self.size)
        generator = numpy_generator("augment", self.seed, position)
        return augment_for_transformer(pixels, self.size, generator)


class EmbeddedCaptions:
    """Captions as "text" and "text_embedding", with the "image_embedding" of their pictures.

    Args:
        embeddings: The embeddings and captions.
        wordings: Draws the captions.
    """

    def __init__(self, embeddings: EmbeddingStore, wordings: Wordings) -> None:
        self.embeddings = embeddings
        self.wordings = wordings

    def __len__(self) -> int:
        return len(self.embeddings)

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        """Picture `index`, with a wording drawn for position `position`."""
        which, text = self.wordings.draw(self.embeddings.captions(index), position)
        return {
            "text": text,
            "text_embedding": torch.from_numpy(self.embeddings.texts(index)[which]),
            "image_embedding": torch.from_numpy(self.embeddings.image(index)),
        }


class Views:
    """Views of pictures as "images" in [-1, 1], with what a model that draws is told of them.

    Args:
        pictures: The data set.
        data: How many views, and which; see `view`.
        size: Side of the pictures in pixels.
        crop_size: Side of a random crop that is taken from each; None for the whole picture.
        wordings: Draws a caption of each as "text"; None for none.
        embeddings: Gives the "embedding" of each view; None for none.
    """

    def __init__(
        self,
        pictures: CaptionedPictures,
        data: DataConfig,
        *,
        size: int,
        crop_size: int | None = None,
        wordings: Wordings | None = None,
        embeddings: EmbeddingStore | None = None,
    ) -> None:
        self.pictures = pictures
        self.data = data
        self.size = size
        self.crop_size = crop_size
        self.wordings = wordings
        self.embeddings = embeddings

    def __len__(self) -> int:
        return len(self.pictures) * self.data.views

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        """View `index`, with a crop and a wording drawn for position `position`."""
        pixels = view(self.pictures, index, size=self.size, seed=self.data.seed)
        if self.crop_size is not None:
            generator = numpy_generator("crop", self.data.seed, position)
            pixels = random_crop(pixels, self.crop_size, generator)
        example = {"images": to_tensor(pixels)}
        if self.wordings is not None:
            captions = self.pictures.captions(index % len(self.pictures))
            _, example["text"] = self.wordings.draw(captions, position)
        if self.embeddings is not None:
            example["embedding"] = torch.from_numpy(self.embeddings.image(index))
        return example


def view(
    pictures: CaptionedPictures, number: int, *, size: int, seed: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A crop of a picture, as it is encoded once for a later stage.

    Args:
        pictures: The data set.
        number: View v of picture i is number v·pictures + i; view 0 is the centre, the rest are
            random.
        size: Side in pixels.
        seed: Keys the random crops.

    Returns:
        8-bit RGB.
    """
    which, index = divmod(number, len(pictures))
    pixels = pictures.pixels(index)
    if which == 0:
        return center_crop(pixels, size)
    return augment_for_transformer(pixels, size, numpy_generator("view", seed, number))


def check_captions(captions: Iterable[str], tokenizer: Tokenizer, *, truncate: bool) -> str | None:
    """Find the captions that are longer than a tokenizer's text.

    Args:
        captions: The captions.
        tokenizer: What encodes them.
        truncate: Whether they may be cut.

    Returns:
        A warning that says how many there are; None if there are none.

    Raises:
        DataError: There are some, and they may not be cut.
    """
    limit = tokenizer.config.context_length
    lengths = np.array([len(tokenizer.encode(caption)) for caption in captions])
    count = int((lengths > limit).sum())
    if not count:
        return None
    found = (
        f"{count:,} of {len(lengths):,} captions ({count / len(lengths):.1%}) are longer than "
        f"{limit} tokens"
    )
    longest = f"the longest has {lengths.max():,}"
    if truncate:
        return f"{found} and are cut; {longest}"
    raise DataError(
        f"{found}; {longest}",
        hint="cut them with --truncate, or make room: a longer tokenizer.context_length, and the "
        "same length for the text of what reads it",
    )
