"""The pictures of a run: those that it learns from, and those that it never does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from armchair.core.errors import DataError
from armchair.core.images import to_tensor
from armchair.data.sources import DataConfig, at_size, open_data
from armchair.data.transforms import center_crop
from armchair.data.types import CaptionedPictures


class RunData:
    """A run's pictures, opened when they are first asked for.

    Args:
        config: Which.
        image_size: Side of the pictures in pixels, as large as any stage wants them.
        folder: The run's; a list of the pictures that cannot be used is left there.
        message: Told how many those are.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        image_size: int,
        folder: Path,
        message: Callable[[str], None],
    ) -> None:
        self.config = config
        self._image_size = image_size
        self._folder = folder
        self._message = message
        self._opened: tuple[CaptionedPictures, CaptionedPictures] | None = None

    def open(
        self, on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[CaptionedPictures, CaptionedPictures]:
        """Training and validation pictures; a folder's are checked first, with (done, total).

        Raises:
            UsageError: No such source.
            DataError: Nothing in the folder can be used, or most of it cannot.
        """
        if self._opened is None:
            self._opened = open_data(
                self.config,
                image_size=self._image_size,
                rejected=self._folder / "rejected.jsonl",
                decoded=self._folder / "decoded.json",
                message=self._message,
                on_progress=on_progress,
            )
        return self._opened

    @property
    def pictures(self) -> CaptionedPictures:
        """The training pictures."""
        return self.open()[0]

    @cached_property
    def fingerprint(self) -> str:
        """What tells these pictures, those for validation too, from others."""
        return " ".join(part.fingerprint() for part in self.open())

    @property
    def num_validation(self) -> int:
        """How many pictures are never trained on."""
        return min(len(self.open()[1]), self.config.num_validation)

    def validation_images(self, size: int, count: int | None = None) -> Float[Tensor, "N 3 H W"]:
        """Pictures in [-1, 1] that are never trained on: the first `count`, all if not given.

        Raises:
            DataError: There are none.
        """
        indices = range(min(self.num_validation, count or self.num_validation))
        if not indices:
            raise DataError("no pictures are left for validation", hint="add more pictures")
        pictures = at_size(self.open()[1], size)
        return to_tensor(np.stack([center_crop(pictures.pixels(i), size) for i in indices]))

    def validation_captions(self) -> list[str]:
        """A caption of each picture that is never trained on; the wordings take turns."""
        pictures = self.open()[1]
        wordings = [pictures.captions(index) for index in range(self.num_validation)]
        return [words[index % len(words)] for index, words in enumerate(wordings)]
