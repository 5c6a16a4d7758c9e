"""CLIP's embeddings of pictures and of their captions on disk, as shards.

The array of a shard is float16: a row for each picture, then one for each caption of the first
picture, of the second, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from armchair.data.shards import Encoded, Shards, write_shards

Embedded = tuple[Float[np.ndarray, "N E"], Float[np.ndarray, "M E"], list[list[str]]]
"""Embeddings of pictures, of all their captions in order, and each picture's captions."""


def write_embeddings(
    folder: Path,
    num_pictures: int,
    encode: Callable[[range], Embedded],
    *,
    about: dict[str, Any],
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the embeddings that `encode` gives of a range of pictures; see `write_shards`."""

    def joined(indices: range) -> Encoded:
        images, texts, captions = encode(indices)
        return np.concatenate([images, texts]).astype(np.float16), captions

    write_shards(folder, num_pictures, joined, about=about, advance=advance)


class EmbeddingStore:
    """The embeddings and captions that `write_embeddings` wrote.

    Args:
        folder: Where they are.
        views: How often each picture is there: view v of picture i is number v·pictures + i, and
            only view 0 needs to have its captions.

    Attributes:
        about: What they are made of, as `write_embeddings` was told.

    Raises:
        DataError: They are incomplete or altered.
    """

    def __init__(self, folder: Path, *, views: int = 1) -> None:
        self._shards = Shards(folder)
        self._num_pictures = len(self._shards) // views
        self.about = self._shards.about
        self._starts = [  # for each shard the row of each picture's first caption, and the end
            len(shard) + np.cumsum([0, *map(len, shard)]) for shard in self._shards.captions
        ]

    def __len__(self) -> int:
        return len(self._shards)

    def image(self, index: int) -> Float32[np.ndarray, " E"]:
        """The embedding of picture `index`."""
        shard, place = self._place(index)
        return self._shards.arrays[shard][place].astype(np.float32)

    def texts(self, index: int) -> Float32[np.ndarray, "N E"]:
        """The embeddings of its captions."""
        shard, place = self._place(index % self._num_pictures)
        first, end = self._starts[shard][place : place + 2]
        return self._shards.arrays[shard][first:end].astype(np.float32)

    def captions(self, index: int) -> list[str]:
        """Its captions."""
        shard, place = self._place(index % self._num_pictures)
        return self._shards.captions[shard][place]

    def pairs(self, count: int) -> tuple[Float32[np.ndarray, "N E"], Float32[np.ndarray, "N E"]]:
        """Embeddings of the first `count` pictures at most, and of the first caption of each."""
        indices = range(min(count, len(self)))
        images = np.stack([self.image(index) for index in indices])
        return images, np.stack([self.texts(index)[0] for index in indices])

    def _place(self, index: int) -> tuple[int, int]:
        return divmod(index, len(self._shards.captions[0]))
