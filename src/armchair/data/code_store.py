"""Image codes on disk, as shards; the transformer reads them and never the pictures.

The array of a shard is uint16 or int32, (pictures, h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from armchair.data.shards import Encoded, Shards, write_shards


def write_codes(
    folder: Path,
    num_pictures: int,
    encode: Callable[[range], Encoded],
    *,
    about: dict[str, Any],
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the codes (N, h, w) that `encode` gives, each in as few bytes as the largest needs.

    See `write_shards`.
    """

    def narrow(indices: range) -> Encoded:
        codes, captions = encode(indices)
        kind = np.uint16 if codes.max(initial=0) < 2**16 else np.int32
        return codes.astype(kind), captions

    write_shards(folder, num_pictures, narrow, about=about, advance=advance)


class CodeStore:
    """The codes and captions that `write_codes` wrote.

    Args:
        folder: Where they are.

    Attributes:
        about: What they are made of, as `write_codes` was told.

    Raises:
        DataError: They are incomplete or altered.
    """

    def __init__(self, folder: Path) -> None:
        shards = Shards(folder)
        self.about = shards.about
        self._codes = shards.arrays
        self._captions = [wordings for shard in shards.captions for wordings in shard]

    def __len__(self) -> int:
        return len(self._captions)

    def codes(self, index: int) -> Int[np.ndarray, "h w"]:
        """The codes of picture `index` as int64."""
        shard, place = divmod(index, len(self._codes[0]))
        return self._codes[shard][place].astype(np.int64)

    def captions(self, index: int) -> list[str]:
        """The captions of picture `index`."""
        return self._captions[index]
