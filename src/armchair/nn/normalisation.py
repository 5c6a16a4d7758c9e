"""Normalisation over groups of a picture's channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_MAX_GROUPS = 32
_MIN_GROUP = 4  # channels, where there are as many


class Norm(nn.GroupNorm):
    """Group normalisation in float32, whatever the input's dtype.

    There are 32 groups, or fewer where they would have less than four channels: a channel that is
    normalised by itself loses its mean, which is how a network passes on a picture's colour.
    """

    def __init__(self, channels: int) -> None:
        num_groups = math.gcd(_MAX_GROUPS, channels)
        while num_groups > 1 and channels < num_groups * _MIN_GROUP:
            num_groups //= 2
        super().__init__(num_groups, channels)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, in the dtype of the input."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float()).to(input.dtype)
