"""Slight damage to the pictures that an upsampler learns to enlarge.

In use it gets a decoder's pictures, which are not those of cameras; one that has only seen clean
pictures would sharpen whatever is wrong with them.

    blur  half of the pictures through a Gaussian, 3x3 pixels, of deviation 0.6
    bsr   blur, another size and back, noise, and JPEG, each of a strength of its own, in any order

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.1; "Cascaded Diffusion Models for High Fidelity Image Generation" (arXiv 2106.15282),
section 4, for half of the pictures; "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution" (arXiv 2103.14006), section 3, for BSR.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from armchair.core.images import to_pil, to_tensor
from armchair.nn.resampling import resize

Degradation = Literal["blur", "bsr"]

_BLUR = 0.6  # deviation in pixels
_BSR_BLUR = (0.1, 1.0)
_BSR_SIZE = (0.5, 1.0)  # share of the side
_BSR_NOISE = (0.0, 0.05)  # deviation
_BSR_QUALITY = (60.0, 95.0)  # of JPEG


def degrade(
    images: Float[Tensor, "B 3 H W"], kind: Degradation, generator: torch.Generator
) -> Float[Tensor, "B 3 H W"]:
    """Damage small squares as an upsampler's training wants them.

    Args:
        images: Pictures in [-1, 1].
        kind: "blur" for the first upsampler, "bsr" for the second.
        generator: What is drawn comes from it.

    Returns:
        Pictures in [-1, 1].
    """
    if kind == "blur":
        some = torch.rand(len(images), generator=generator, device=images.device) < 0.5
        return torch.where(some[:, None, None, None], blur(images, _BLUR), images)
    # Many small steps on small pictures, JPEG among them: the CPU's, wherever the model learns.
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    own = torch.Generator().manual_seed(int(seed))
    damaged = torch.cat([_bsr(image, own) for image in images.cpu().split(1)])
    return damaged.to(images.device)


def blur(images: Float[Tensor, "B C H W"], deviation: float) -> Float[Tensor, "B C H W"]:
    """Blur with a Gaussian of 3x3 pixels; edges are mirrored."""
    places = torch.arange(-1.0, 2.0, device=images.device)
    row = torch.exp(-0.5 * (places / deviation).square())
    row = row / row.sum()
    kernel = (row[:, None] * row).expand(images.shape[1], 1, 3, 3)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    with torch.autocast(images.device.type, enabled=False):
        return F.conv2d(padded, kernel, groups=images.shape[1])


def _bsr(image: Float[Tensor, "1 3 H W"], generator: torch.Generator) -> Tensor:
    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    side = image.shape[-1]
    for step in torch.randperm(4, generator=generator).tolist():
        if step == 0:
            image = blur(image, between(*_BSR_BLUR))
        elif step == 1:
            image = resize(resize(image, round(side * between(*_BSR_SIZE))), side)
        elif step == 2:
            noise = torch.randn(image.shape, generator=generator)
            image = (image + between(*_BSR_NOISE) * noise).clamp(-1, 1)
        else:
            image = _jpeg(image, round(between(*_BSR_QUALITY)))
    return image


def _jpeg(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_pil(image)[0].save(file, format="JPEG", quality=quality)
    with Image.open(file) as again:
        return to_tensor(np.asarray(again))[None]
