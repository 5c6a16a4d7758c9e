"""The shapes that all contestants are built in. Imported by every environment: the standard
library alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A transformer over text and image tokens, and a batch to train it on.

    Attributes:
        dim: Width.
        num_layers: Layers.
        num_heads: Heads, of dim / num_heads each.
        text_length: Text tokens.
        text_vocab: Of how many.
        grid_size: Side of the grid of image codes.
        image_vocab: Of how many.
        train_batch: Captioned pictures of an update.
    """

    dim: int
    num_layers: int
    num_heads: int
    text_length: int
    text_vocab: int
    grid_size: int
    image_vocab: int
    train_batch: int

    @property
    def image_length(self) -> int:
        """Image tokens."""
        return self.grid_size**2

    @property
    def length(self) -> int:
        """Tokens in all."""
        return self.text_length + self.image_length

    @property
    def config(self) -> dict[str, int]:
        """What our `TextToImageConfig` is made from."""
        return {
            "text_vocab_size": self.text_vocab,
            "text_length": self.text_length,
            "image_vocab_size": self.image_vocab,
            "grid_size": self.grid_size,
            "dim": self.dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
        }


SHAPES = {
    "A": Shape(
        dim=256,
        num_layers=8,
        num_heads=8,
        text_length=64,
        text_vocab=4096,
        grid_size=16,
        image_vocab=1024,
        train_batch=8,
    ),
    "B": Shape(
        dim=512,
        num_layers=12,
        num_heads=8,
        text_length=256,
        text_vocab=16_384,
        grid_size=32,
        image_vocab=8192,
        train_batch=2,
    ),
}
"""A: for a laptop. B: the paper's proportions, scaled down."""

AUTOENCODER_PIXELS, AUTOENCODER_CODES, AUTOENCODER_BATCH = 128, 1024, 16
"""Of the discrete VAEs, which make 16x16 codes of a picture and have a million parameters."""
