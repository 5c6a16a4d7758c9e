"""What a diffusion U-Net is made of: residual blocks steered by a vector, and attention.

    h = conv(silu(norm(x)))
    h = conv(silu(norm(h) (1 + scale) + shift))          scale and shift from the vector
    out = skip(x) + h

The last layer of each branch starts at zero, so that a new block passes on what it gets.

Source: "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233), section 3; "GLIDE"
(arXiv 2112.10741), section 4, for attention to text.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.nn.attention import attend
from armchair.nn.normalisation import Norm

Resampling = Literal["down", "up"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip, the second's norm scaled and shifted by a vector.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        vector_dim: Width V of the vector.
        dropout: Share of the activations before the last convolution dropped in training.
        resampling: Halve or double the height and width, inside the branch and the skip; None to
            keep them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        vector_dim: int,
        dropout: float = 0.0,
        resampling: Resampling | None = None,
    ) -> None:
        super().__init__()
        self.resampling: Resampling | None = resampling
        self.first_norm = Norm(in_channels)
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(vector_dim, 2 * out_channels)
        self.last_norm = Norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.last = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "B C H W"], vector: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B D H2 W2"]:
        """Apply the block; the vector has been through its activation."""
        h = self.first(self._resample(F.silu(self.first_norm(x))))
        scale, shift = self.modulation(vector)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.last_norm(h), 1 + scale)
        h = self.last(self.dropout(F.silu(h)))
        return self.skip(self._resample(x)) + h

    def _resample(self, x: Tensor) -> Tensor:
        if self.resampling == "down":
            return F.avg_pool2d(x, 2)
        if self.resampling == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x


class SpatialAttention(nn.Module):
    """Every place of a picture attends to all places, and to tokens from elsewhere.

    Args:
        channels: Channels of the picture, a multiple of `head_dim`.
        head_dim: Width K of a head.
        context_dim: Width D of the tokens; None where there are none.
    """

    def __init__(self, channels: int, *, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.num_heads = channels // head_dim
        self.norm = Norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.context = None if context_dim is None else nn.Linear(context_dim, 2 * channels)
        self.projection = zeroed(nn.Linear(channels, channels))

    def forward(
        self, x: Float[Tensor, "B C H W"], context: Float[Tensor, "B S D"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Apply the block."""
        places = self.norm(x).permute(0, 2, 3, 1)  # B H W C
        q, k, v = self._heads(self.qkv(places.flatten(1, 2)), 3)
        if self.context is not None:
            assert context is not None
            keys, values = self._heads(self.context(context), 2)
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        attended = attend(q, k, v)  # B N HW K
        outputs = self.projection(attended.transpose(1, 2).flatten(2))
        return x + outputs.view(places.shape).permute(0, 3, 1, 2)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """B T (parts · C) to `parts` times B N T K."""
        return x.unflatten(-1, (parts, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def zeroed(layer: Layer) -> Layer:
    """The layer with weights and biases of zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
