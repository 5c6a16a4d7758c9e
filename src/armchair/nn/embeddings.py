"""Tokens and timesteps to vectors.

Text is embedded by learned positions, an image by the sum of its row and its column; a timestep of
a diffusion by sines and cosines.

Source: "Zero-Shot Text-to-Image Generation", section 2.2 and figure 10; for timesteps, "Denoising
Diffusion Probabilistic Models" (arXiv 2006.11239), appendix B.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

_MAX_PERIOD = 10_000


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
        self.vocab_size = vocab_size
        self.token = nn.Embedding(vocab_size + text_length, dim)
        self.position = nn.Embedding(text_length, dim)

    def forward(self, text: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Embed whole texts, padded to their length."""
        return self.token(text) + self.position.weight

    def null_text(self, batch_size: int) -> Int64[Tensor, "B T"]:
        """The text that says nothing: padding at every position."""
        positions = torch.arange(len(self.position.weight), device=self.position.weight.device)
        return (self.vocab_size + positions).expand(batch_size, -1)


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
        return self.token(codes) + self.places()[start : start + codes.shape[1]]

    def at(self, codes: Int64[Tensor, " B"], index: int | Int[Tensor, "1"]) -> Float[Tensor, "B D"]:
        """Embed image tokens of one raster position."""
        return self.token(codes) + self.places()[index]

    def places(self) -> Float[Tensor, "S D"]:
        """The vector of each raster position."""
        return (self.row.weight[:, None] + self.column.weight[None, :]).flatten(0, 1)


class TimestepEmbedding(nn.Module):
    """Sines and cosines of a timestep, then a perceptron.

    Args:
        channels: Sines and cosines in all, an even number.
        dim: Width D of the result.
    """

    def __init__(self, channels: int, *, dim: int) -> None:
        super().__init__()
        self.channels = channels
        self.hidden = nn.Linear(channels, dim)
        self.activation = nn.SiLU()
        self.output = nn.Linear(dim, dim)

    def forward(self, t: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """Embed each timestep."""
        return self.output(self.activation(self.hidden(sinusoids(t, self.channels))))


def sinusoids(t: Int[Tensor, " B"], channels: int) -> Float[Tensor, "B C"]:
    """Cosines, then sines, of each timestep at periods of 2 pi to nearly 10,000 times 2 pi.

    Args:
        t: Timesteps.
        channels: How many in all, an even number.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t[:, None] * torch.exp(-math.log(_MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
