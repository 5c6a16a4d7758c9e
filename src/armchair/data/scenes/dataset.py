"""Scenes as a data set of captioned pictures.

    scenes = Scenes(ScenesConfig(num_pictures=6000, size=64))
    scenes.pixels(0), scenes.captions(0)

Nothing is stored: a picture is drawn when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from armchair.core.errors import ConfigError
from armchair.core.random import numpy_generator
from armchair.data.scenes.drawing import draw
from armchair.data.scenes.near_misses import near_miss
from armchair.data.scenes.wording import MAX_CAPTIONS, captions
from armchair.data.scenes.world import SPLITS, Scene, scene

MIN_SIZE = 32  # pixels along a side


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """Which scenes, how many, and how large."""

    num_pictures: int
    """Pictures in the data set."""
    size: int = 128
    """Pixels along a side."""
    seed: int = 0
    """Which world."""
    split: str = "train"
    """Which of its streams: "train", "validation", or "held_out"."""
    num_captions: int = 8
    """Different wordings of each picture."""

    def __post_init__(self) -> None:
        if self.num_pictures < 1:
            raise ConfigError("num_pictures", got=self.num_pictures, expected="at least 1")
        if self.size < MIN_SIZE:
            raise ConfigError("size", got=self.size, expected=f"at least {MIN_SIZE} pixels")
        if self.split not in SPLITS:
            raise ConfigError("split", got=self.split, expected="one of " + ", ".join(SPLITS))
        if not 1 <= self.num_captions <= MAX_CAPTIONS:
            raise ConfigError(
                "num_captions", got=self.num_captions, expected=f"1 to {MAX_CAPTIONS}"
            )


class Scenes:
    """A data set of scenes; each picture a pure function of the seed, the split and its index."""

    def __init__(self, config: ScenesConfig) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.num_pictures

    def scene(self, index: int) -> Scene:
        """What picture `index` shows."""
        if not 0 <= index < len(self):
            raise IndexError(f"index: got {index}, expected 0 to {len(self) - 1}")
        return scene(self.config.seed, index, split=self.config.split)

    def pixels(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Picture `index` as 8-bit RGB."""
        return draw(self.scene(index), self.config.size)

    def captions(self, index: int) -> list[str]:
        """Picture `index` in `num_captions` different wordings."""
        return self._captions(index, self.scene(index))

    def near_misses(
        self, index: int, wording: int, count: int, generator: np.random.Generator
    ) -> list[str]:
        """Captions that are not true of picture `index`, though all but one thing in them is.

        Args:
            index: Which picture.
            wording: Which of its captions they are to be worded like.
            count: How many; the same may be among them twice.
            generator: Where the choices come from.
        """
        true = self._captions(index, self.scene(index))[wording]
        texts: list[str] = []
        while len(texts) < count:
            text = self._captions(index, near_miss(self.scene(index), generator))[wording]
            if text != true:  # it states what was changed
                texts.append(text)
        return texts

    def _captions(self, index: int, scene: Scene) -> list[str]:
        """A scene in the wordings of picture `index`."""
        generator = numpy_generator(f"scenes/{self.config.split}/captions", self.config.seed, index)
        return captions(scene, self.config.num_captions, generator)

    def fingerprint(self) -> str:
        """What tells these scenes from others; their size does not."""
        config = self.config
        return f"{config.split} {config.seed} {config.num_pictures} {config.num_captions}"
