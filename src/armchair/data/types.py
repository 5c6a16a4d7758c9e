"""What a data set of captioned pictures is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@runtime_checkable
class CaptionedPictures(Protocol):
    """Pictures with captions, addressed by index; each a pure function of the index."""

    def __len__(self) -> int:
        """The number of pictures."""
        ...

    def pixels(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture as 8-bit RGB. Pictures of one data set may differ in size."""
        ...

    def captions(self, index: int) -> list[str]:
        """At least one caption; several are different wordings for the same picture."""
        ...

    def fingerprint(self) -> str:
        """What tells these pictures and captions from others; the same in any process."""
        ...


@runtime_checkable
class NearMisses(Protocol):
    """Pictures of which it is known what is nearly true of them."""

    def near_misses(
        self, index: int, wording: int, count: int, generator: np.random.Generator
    ) -> list[str]:
        """As many captions, worded like one of the picture's own, of which one thing is not true.

        Args:
            index: Which picture.
            wording: The number of that caption of its own.
            count: How many.
            generator: Where the choices come from.
        """
        ...
