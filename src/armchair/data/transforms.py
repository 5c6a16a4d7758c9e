"""The paper's crops and resizes, as functions of the pixels and a generator.

    stage 1, the dVAE          any square crop, shrunk to 9/8 .. 12/8 of the size, cropped, flipped
    stage 2, the transformer   a square crop near the centre, shrunk to 1 .. 9/8, cropped, never
                               flipped: pictures hold writing, and captions hold left and right
    evaluation                 the square in the centre, shrunk to the size

Shrinking averages areas exactly: a target pixel is the mean of what it covers, with parts of pixels
counted as parts. Pillow's BOX filter counts a pixel wholly or not at all, which at 9/8 of the size
is nearly nearest-neighbour. The paper's pictures are all larger than the target; one that is
smaller is enlarged to it with a bicubic filter.

Source: "Zero-Shot Text-to-Image Generation", arXiv 2102.12092, Listings 1 and 2.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from armchair.core.errors import ConfigError

_BLOCKS_PER_PIXEL = 4  # whole blocks are averaged first while so many remain per target pixel


def augment_for_autoencoder(
    pixels: UInt8[np.ndarray, "H W 3"], size: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Crop, shrink, and flip a picture at random, for the first stage.

    Args:
        pixels: 8-bit RGB.
        size: Side of the result, in pixels.
        generator: Where crops, scale, and flip are drawn from.

    Returns:
        8-bit RGB.

    Source: Listing 1.
    """
    height, width, _ = pixels.shape
    side = min(height, width)
    top = int(generator.integers(height - side + 1))
    left = int(generator.integers(width - side + 1))
    square = pixels[top : top + side, left : left + side]
    low, high = (min(side, round(factor * size)) for factor in (9 / 8, 12 / 8))
    resized = resize(square, max(size, int(generator.integers(low, high + 1))))
    cropped = random_crop(resized, size, generator)
    return np.ascontiguousarray(cropped[:, ::-1] if generator.random() < 0.5 else cropped)


def augment_for_transformer(
    pixels: UInt8[np.ndarray, "H W 3"], size: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Crop a picture near its centre and shrink it, for the second stage; no flip.

    Args:
        pixels: 8-bit RGB.
        size: Side of the result, in pixels.
        generator: Where crops and scale are drawn from.

    Returns:
        8-bit RGB.

    Source: Listing 2.
    """
    height, width, _ = pixels.shape
    side = min(height, width)
    top = _near_center(height - side, generator)
    left = _near_center(width - side, generator)
    square = pixels[top : top + side, left : left + side]
    high = max(size, min(side, round(9 / 8 * size)))
    resized = resize(square, int(generator.integers(size, high + 1)))
    return np.ascontiguousarray(random_crop(resized, size, generator))


def center_crop(
    pixels: UInt8[np.ndarray, "H W 3"], size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Take the square in the centre of a picture and resize it; nothing is random.

    Args:
        pixels: 8-bit RGB.
        size: Side of the result, in pixels.

    Returns:
        8-bit RGB; `pixels` itself if it has this size already.
    """
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(pixels[top : top + side, left : left + side], size)


def random_crop(
    pixels: UInt8[np.ndarray, "S S 3"], size: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A square out of a square picture, anywhere in it, as it is.

    Args:
        pixels: 8-bit RGB.
        size: Side of the result, at most that of the picture, in pixels.
        generator: Where its place is drawn from.
    """
    top, left = (int(generator.integers(len(pixels) - size + 1)) for _ in range(2))
    return pixels[top : top + size, left : left + size]


def resize(pixels: UInt8[np.ndarray, "S S 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Resize a square: by averaging areas when it shrinks, with a bicubic filter when it grows.

    Very large pictures are first averaged in whole blocks, at least four to a target pixel.

    Args:
        pixels: 8-bit RGB.
        size: Side of the result, in pixels.

    Returns:
        8-bit RGB, rounded; `pixels` itself if it has this size already.

    Raises:
        ConfigError: `size` is below 1.
    """
    if size < 1:
        raise ConfigError("size", got=size, expected="at least 1 pixel")
    side = len(pixels)
    if side == size:
        return pixels
    if side < size:
        picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        return np.array(picture)
    block = side // (_BLOCKS_PER_PIXEL * size)
    if block > 1:
        pixels = np.asarray(Image.fromarray(pixels).reduce(block))
    rows = _average_rows(pixels, size)  # size S 3
    columns = _average_rows(rows.swapaxes(0, 1), size)  # size size 3, columns first
    return np.rint(columns.swapaxes(0, 1)).astype(np.uint8)


def _average_rows(pixels: np.ndarray, size: int) -> np.ndarray:
    """Average the first axis down to `size`, each row weighted by how much of it is covered."""
    scale = len(pixels) / size
    low = np.arange(size) * scale
    high = low + scale
    first = low.astype(np.int64)
    total = np.zeros((size, *pixels.shape[1:]), np.float32)
    for offset in range(math.ceil(scale) + 1):
        row = first + offset
        covered = np.clip(np.minimum(high, row + 1) - np.maximum(low, row), 0, None) / scale
        weight = covered.astype(np.float32)[:, None, None]
        total += weight * pixels[np.minimum(row, len(pixels) - 1)]
    return total


def _near_center(slack: int, generator: np.random.Generator) -> int:
    """An offset from 3/8 up to, but not including, 5/8 of the slack."""
    low, high = 3 * slack // 8, 5 * slack // 8
    return int(generator.integers(low, max(low + 1, high)))
