"""Bottleneck residual blocks of the discrete VAE's encoder and decoder.

    out = skip(x) + gain · residual(x)

Source: "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), appendix A.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution that keeps the height and width, initialised to keep the variance.

    Weights are normal with variance 1/fan-in and biases zero.
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, std=(in_channels * kernel_size**2) ** -0.5)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class BottleneckBlock(nn.Module):
    """Four convolutions through a quarter of the width, and a skip.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; a multiple of 4.
        kernel_sizes: Kernel sizes of the four convolutions: (3, 3, 3, 1) in the encoder,
            (1, 3, 3, 3) in the decoder.
        gain: The factor on the residual path, 1/(number of blocks)² in the paper.
        upsample: Double the height and width of the input, by nearest neighbour. This commutes
            with ReLU and 1x1 convolutions, so those run first, at a quarter of the cost.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_sizes: Sequence[int],
        gain: float,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        if upsample and kernel_sizes[0] != 1:
            raise ValueError(f"upsample: the first kernel is {kernel_sizes[0]}, expected 1")
        self.gain = gain
        self.upsample = upsample
        hidden = out_channels // 4
        widths = (in_channels, hidden, hidden, hidden, out_channels)
        self.convolutions = nn.ModuleList(
            convolution(*pair, size)
            for pair, size in zip(pairwise(widths), kernel_sizes, strict=True)
        )
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else convolution(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Apply the block; the height and width stay, or double with `upsample`."""
        first, *others = self.convolutions
        residual, skip = first(F.relu(x)), self.skip(x)
        if self.upsample:
            residual = F.interpolate(residual, scale_factor=2, mode="nearest")
            skip = F.interpolate(skip, scale_factor=2, mode="nearest")
        for layer in others:
            residual = layer(F.relu_(residual))  # in place: nobody else reads it
        return torch.add(skip, residual, alpha=self.gain)
