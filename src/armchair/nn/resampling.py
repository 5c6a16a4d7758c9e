"""Pictures to another size, antialiased: what models enlarge, and what they are trained to."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resize(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C S S"]:
    """Resize squares with a bicubic filter that widens where the picture shrinks.

    Args:
        images: Pictures in [-1, 1].
        size: Side S of the result in pixels.

    Returns:
        Float32 in [-1, 1], into which the filter's overshoot is clamped.
    """
    shape = (size, size)
    resized = F.interpolate(images.float(), size=shape, mode="bicubic", antialias=True)
    return resized.clamp(-1, 1)
