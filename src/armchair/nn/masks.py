"""Who may look at whom: the four attention patterns of DALL·E as dense masks.

The stream is `text_length` text tokens followed by a square grid of image tokens in raster order.
Text is causal among itself and sees no image; every image token sees all the text. What an image
token sees of the image is the pattern, always without the future (W is the side of the grid):

    full         every earlier image token
    row          the W + 1 last tokens in raster order, itself among them: the window runs back
                 over the row's beginning to the same column of the previous row
    column       its own column, in this row and all previous ones
    convolution  a k x k kernel centred on the token; in raster order the kernel's columns run
                 over the ends of a row into the neighbouring rows

These masks are written from the definitions and are the reference for every faster path.

    pattern = AttentionPattern(kind="row", text_length=32, grid_size=16)
    mask = dense_mask(pattern)      # bool, L L; True where the row's token sees the column's token

Source: "Zero-Shot Text-to-Image Generation", appendix B.1 and figure 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from armchair.core.errors import ConfigError, UnknownNameError

PatternKind = Literal["full", "row", "column", "convolution"]
AttentionName = Literal["paper", "full"]


@dataclass(frozen=True, kw_only=True)
class AttentionPattern:
    """What one attention layer lets each token of the stream see.

    Attributes:
        kind: One of the four patterns.
        text_length: Text tokens before the image, at least 1.
        grid_size: Side of the square grid of image tokens, at least 1.
        conv_kernel: Side of the convolution pattern's kernel, odd; the others do not read it.
    """

    kind: PatternKind
    text_length: int
    grid_size: int
    conv_kernel: int = 11

    def __post_init__(self) -> None:
        for field in ("text_length", "grid_size"):
            if getattr(self, field) < 1:
                raise ConfigError(field, got=getattr(self, field), expected="at least 1")
        if self.conv_kernel < 1 or self.conv_kernel % 2 == 0:
            raise ConfigError("conv_kernel", got=self.conv_kernel, expected="an odd number")

    @property
    def image_length(self) -> int:
        """Image tokens in the stream."""
        return self.grid_size**2

    @property
    def length(self) -> int:
        """Tokens in the stream, text and image."""
        return self.text_length + self.image_length


def dense_mask(pattern: AttentionPattern) -> Bool[Tensor, "L L"]:
    """Write a pattern out over the whole stream.

    Returns:
        On the CPU: True where the token of the row may see the token of the column.
    """
    mask = torch.ones(pattern.length, pattern.length, dtype=torch.bool, device="cpu").tril()
    text = pattern.text_length
    mask[text:, text:] = _image_mask(pattern)
    return mask


def plan_order(pattern: AttentionPattern) -> Int[Tensor, " L"]:
    """The order in which what a token sees of the image is a stretch, but for a convolution.

    Returns:
        Positions in the stream: its own order, with the image column by column where tokens see
        columns.
    """
    text, side = pattern.text_length, pattern.grid_size
    image = torch.arange(side**2, device="cpu").view(side, side)
    if pattern.kind == "column":
        image = image.T
    return torch.cat([torch.arange(text, device="cpu"), text + image.flatten()])


def _image_mask(pattern: AttentionPattern) -> Bool[Tensor, "S S"]:
    side = pattern.grid_size
    position = torch.arange(side**2, device="cpu")
    back = position[:, None] - position[None, :]  # how far back in raster order the key lies
    past = back >= 0
    if pattern.kind == "row":
        return past & (back <= side)
    if pattern.kind == "column":
        return past & (back % side == 0)
    if pattern.kind == "convolution":
        return past & torch.isin(back, _kernel_offsets(side, pattern.conv_kernel))
    if pattern.kind == "full":
        return past
    raise UnknownNameError("attention pattern", pattern.kind, get_args(PatternKind))


def _kernel_offsets(side: int, kernel: int) -> Int[Tensor, " O"]:
    reach = kernel // 2
    rows_up = torch.arange(reach + 1, device="cpu")
    columns_left = torch.arange(-reach, reach + 1, device="cpu")
    return (rows_up[:, None] * side + columns_left[None, :]).flatten()


def layer_patterns(
    attention: str,
    num_layers: int,
    *,
    text_length: int,
    grid_size: int,
    conv_kernel: int = 11,
) -> tuple[AttentionPattern, ...]:
    """Name the pattern of every layer.

    Args:
        attention: An `AttentionName`: "paper" for row, column, row, row, … with a convolution in
            the last layer only; "full" for full attention everywhere.
        num_layers: Layers, at least 1.
        text_length: See `AttentionPattern`.
        grid_size: See `AttentionPattern`.
        conv_kernel: See `AttentionPattern`.

    Returns:
        One pattern a layer, first layer first.

    Raises:
        UnknownNameError: `attention` is neither.

    Source: appendix B.1: column attention in layer i (counted from 1) if (i - 2) mod 4 = 0.
    """
    if attention not in get_args(AttentionName):
        raise UnknownNameError("attention", attention, get_args(AttentionName))
    kinds: list[PatternKind] = ["full"] * num_layers
    if attention == "paper":
        kinds = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, num_layers)]
        kinds.append("convolution")
    return tuple(
        AttentionPattern(
            kind=kind, text_length=text_length, grid_size=grid_size, conv_kernel=conv_kernel
        )
        for kind in kinds
    )
