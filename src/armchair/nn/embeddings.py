"""Tokens to vectors: text by learned positions, image by the sum of its row and its column.

Source: "Zero-Shot Text-to-Image Generation", section 2.2 and figure 10.
"""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor, nn


class TextEmbedding(nn.Module):
    """A vector for each text token plus one for each position.

    Each position has a padding token of its own: the id `vocab_size + position`.

    Args:
        vocab_size: Text tokens V without the padding.
        text_length: Positions T.
        dim: Width D.
    """

    def __init__(self, vocab_size: int, *, text_length: int, dim: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size + text_length, dim)
        self.position = nn.Embedding(text_length, dim)

    def forward(self, text: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Embed whole texts, padded to their length."""
        return self.token(text) + self.position.weight


class ImageEmbedding(nn.Module):
    """A vector for each image token plus one for its row and one for its column.

    Args:
        vocab_size: Image tokens V.
        grid_size: Side of the grid.
        dim: Width D.
    """

    def __init__(self, vocab_size: int, *, grid_size: int, dim: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, dim)
        self.row = nn.Embedding(grid_size, dim)
        self.column = nn.Embedding(grid_size, dim)

    def forward(self, codes: Int64[Tensor, "B S"], *, start: int = 0) -> Float[Tensor, "B S D"]:
        """Embed the image tokens from raster position `start` on."""
        grid = self.row.weight[:, None] + self.column.weight[None, :]  # H W D
        return self.token(codes) + grid.flatten(0, 1)[start : start + codes.shape[1]]
