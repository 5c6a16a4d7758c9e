"""From pictures to the tokens of a vision transformer, one for each patch.

Source: "An Image is Worth 16x16 Words" (arXiv 2010.11929), section 3.1, for the linear ones; "Early
Convolutions Help Transformers See Better" (arXiv 2106.14881), section 4, for convolutions.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from armchair.nn.normalisation import Norm

Patches = Literal["linear", "convolutions"]


def patch_layers(kind: Patches, patch_size: int, dim: int) -> nn.Module:
    """What makes patches of pictures, B 3 H W, into B D H/P W/P.

    Args:
        kind: "linear", one matrix for all pixels of a patch; or "convolutions" of 3x3, each of
            which halves the picture's side and, after the first, doubles the width, up to D. They
            learn shapes from far fewer pictures, whatever these are made of.
        patch_size: Side P of a patch in pixels; for convolutions a power of 2, at least 2.
        dim: Width D; for convolutions a multiple of half the patch's side.
    """
    if kind == "linear":
        return nn.Conv2d(3, dim, patch_size, stride=patch_size, bias=False)
    layers: list[nn.Module] = []
    width = 3
    for layer in reversed(range(patch_size.bit_length() - 1)):
        layers.append(nn.Conv2d(width, dim >> layer, 3, stride=2, padding=1, bias=False))
        width = dim >> layer
        layers += [Norm(width), nn.GELU()]
    layers.append(nn.Conv2d(dim, dim, 1, bias=False))
    return nn.Sequential(*layers)
