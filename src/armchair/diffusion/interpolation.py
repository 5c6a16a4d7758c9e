"""Between two vectors: along the circle through both, not along the chord.

    slerp(one, other, 0.5)

A mean of two unit vectors is shorter than either, and a mean of two pictures of noise has less
variance than noise. The circle keeps both as they should be.

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
sections 3.2 and 3.3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from armchair.core.errors import ConfigError

_OPPOSITE = 1e-6  # radians short of half a turn


def slerp(
    one: Float[Tensor, "B *S"], other: Float[Tensor, "B *S"], share: float
) -> Float[Tensor, "B *S"]:
    """Go a share of the way from one to the other, at an even pace.

    Args:
        one: Vectors, or pictures of noise, which are taken as vectors.
        other: As many.
        share: In [0, 1]; at its ends the result is `one` or `other` exactly.

    Returns:
        Vectors whose lengths lie between those of the two; unit vectors of unit vectors.

    Raises:
        ConfigError: The share is out of range, or two vectors are opposite, so that no direction
            leads from one to the other.
    """
    if not 0 <= share <= 1:
        raise ConfigError("share", got=share, expected="in [0, 1]")
    if share in (0, 1):
        return other if share else one
    a, b = one.double().flatten(1), other.double().flatten(1)
    lengths = [vector.norm(dim=1, keepdim=True).clamp(min=1e-12) for vector in (a, b)]
    a, b = a / lengths[0], b / lengths[1]
    angle = 2 * torch.atan2((a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True))
    if bool((angle > torch.pi - _OPPOSITE).any()):
        raise ConfigError("one and other", got="opposite vectors", expected="any others")
    # sin(share · angle) / sin(angle), which tends to the share as the angle vanishes
    weights = [
        torch.where(angle < 1e-9, part, (part * angle).sin() / angle.sin().clamp(min=1e-12))
        for part in (1 - share, share)
    ]
    direction = weights[0] * a + weights[1] * b
    length = (1 - share) * lengths[0] + share * lengths[1]
    return (length * direction).view(one.shape).to(one.dtype)
