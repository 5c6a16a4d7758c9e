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
