"""The only place where pixel ranges change.

On disk and between people a picture is 8-bit RGB (`uint8`, H W 3, 0 to 255). Everywhere else it is
a float32 tensor (B C H W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from armchair.core.files import atomic_path


def to_tensor(pixels: UInt8[np.ndarray, "*B H W 3"]) -> Float[Tensor, "*B 3 H W"]:
    """8-bit pixels, 0 to 255, to a float32 tensor in [-1, 1]."""
    channels_first = torch.from_numpy(np.moveaxis(pixels, -1, -3).copy())
    return channels_first.float().div_(127.5).sub_(1.0)


def to_pixels(images: Float[Tensor, "*B 3 H W"]) -> UInt8[np.ndarray, "*B H W 3"]:
    """A float tensor in [-1, 1] (values outside are clamped) to 8-bit pixels, rounded."""
    scaled = images.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round()
    return np.moveaxis(scaled.to(torch.uint8).numpy(), -3, -1).copy()


def to_unit(images: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """[-1, 1] to [0, 1], the range in which the paper states its likelihood."""
    return images.add(1).mul(0.5)


def from_unit(images: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """[0, 1] to [-1, 1]."""
    return images.mul(2).sub(1)


def to_pil(images: Float[Tensor, "B 3 H W"]) -> list[Image.Image]:
    """A batch in [-1, 1] to a list of PIL pictures."""
    return [Image.fromarray(pixels) for pixels in to_pixels(images)]


def contact_sheet(
    pictures: Sequence[Image.Image], *, columns: int, margin: int = 2, scale: int = 1
) -> Image.Image:
    """Lay pictures of one size out in rows on white.

    Args:
        pictures: At least one picture, all of the same size.
        columns: Pictures in a row.
        margin: White pixels between and around them.
        scale: Whole-number enlargement of each, by nearest neighbour.

    Returns:
        An RGB picture.
    """
    if not pictures:
        raise ValueError("pictures: got none, expected at least one")
    width, height = (side * scale for side in pictures[0].size)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    size = (columns * (width + margin) + margin, rows * (height + margin) + margin)
    sheet = Image.new("RGB", size, "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        if scale > 1:
            picture = picture.resize((width, height), Image.Resampling.NEAREST)  # noqa: PLW2901
        sheet.paste(picture, (margin + column * (width + margin), margin + row * (height + margin)))
    return sheet


def png_text(picture: Image.Image, text: Mapping[str, str]) -> dict[str, str]:
    """What `save_png` writes beside the pixels."""
    strings = {str(name): v for name, v in picture.info.items() if isinstance(v, str)}
    return {**strings, **text}


def save_png(picture: Image.Image, path: Path, text: Mapping[str, str]) -> None:
    """Write a PNG, atomically, with text chunks: the strings of `picture.info`, and `text`.

    Raises:
        OutputError: It cannot be written.
    """
    chunks = PngInfo()
    for name, value in png_text(picture, text).items():
        chunks.add_itxt(name, value)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=chunks)
