"""Figures of the attention patterns: toy, in full, and layer by layer."""

from __future__ import annotations

from typing import get_args

import numpy as np
from drawing.style import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    HIDDEN,
    PIT,
    add_legend,
    bare,
    draw_cells,
    new_figure,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from armchair.models.sequence.text_to_image import TextToImageConfig
from armchair.nn.masks import AttentionPattern, PatternKind, dense_mask, layer_patterns
from armchair.recipes import build_recipe

_COLOURS: dict[PatternKind, str] = {"full": AMBER, "row": GREEN, "column": BLUE, "convolution": PIT}


def draw_masks(*, grid_size: int, text_length: int, conv_kernel: int, token: int) -> Figure:
    """The four patterns: what one image token sees on the grid, and the mask of the whole stream.

    Args:
        grid_size: Side of the grid of image tokens.
        text_length: Text tokens before them.
        conv_kernel: Side of the convolution's kernel.
        token: The image token that looks, by its place in raster order.
    """
    kinds: tuple[PatternKind, ...] = get_args(PatternKind)
    figure, axes = new_figure(11, 6.1, rows=2, columns=len(kinds))
    for (above, below), kind in zip(axes.T, kinds, strict=True):
        pattern = AttentionPattern(
            kind=kind, text_length=text_length, grid_size=grid_size, conv_kernel=conv_kernel
        )
        seen = dense_mask(pattern).numpy().astype(int)  # L L
        seen[:, text_length:] *= 2
        row = text_length + token
        of_token = seen[row, text_length:].copy()
        of_token[token] = 3
        draw_cells(above, of_token.reshape(grid_size, grid_size), edge=8 / grid_size)
        draw_cells(below, seen, edge=0.8 if grid_size <= 4 else 0)
        below.add_patch(Rectangle((0, row), len(seen), 1, fill=False, edgecolor=PIT, linewidth=1.2))
        middles = [text_length / 2, text_length + grid_size**2 / 2]
        below.set_xticks(middles, ["text", "image"])
        below.tick_params(length=0)
        size = f" {conv_kernel}×{conv_kernel}" if kind == "convolution" else ""
        above.set_title(kind + size, fontweight="bold")
        if grid_size <= 4:
            _number_cells(above, grid_size, of_token)
        if kind == kinds[0]:
            above.set_ylabel(f"what image token {token} sees\nof the image")
            below.set_ylabel("the whole mask: each line is a token,\neach column what it looks at")
            below.set_yticks(middles, ["text", "image"], rotation=90, va="center")
    colours = {"the token that looks": PIT, "text that it sees": AMBER, "image that it sees": GREEN}
    add_legend(figure, {**colours, "not seen": HIDDEN})
    return figure


def _number_cells(axes: Axes, side: int, values: np.ndarray) -> None:
    for place, value in enumerate(values):
        y, x = divmod(place, side)
        colour = "white" if value > 1 else FAINT
        axes.text(x + 0.5, y + 0.5, str(place), ha="center", va="center", color=colour)


def draw_toy_masks() -> Figure:
    """The patterns on the paper's toy grid, 4 by 4, behind three text tokens."""
    return draw_masks(grid_size=4, text_length=3, conv_kernel=3, token=9)


def draw_model_masks() -> Figure:
    """The patterns of the shipped model, near the grid's left edge."""
    config = build_recipe("scenes").transformer
    side, kernel = config.grid_size, config.conv_kernel
    token = side * (side * 5 // 8) + 2
    return draw_masks(
        grid_size=side, text_length=config.text_length, conv_kernel=kernel, token=token
    )


def draw_layers() -> Figure:
    """The pattern of every layer, of the paper's transformer and of the shipped one."""
    figure, axes = new_figure(11, 2.1, rows=2)
    widest = build_recipe("dalle1-paper").transformer.num_layers
    for panel, name in zip(axes[:, 0], ("dalle1-paper", "scenes"), strict=True):
        kinds = _layer_kinds(build_recipe(name).transformer)
        for layer, kind in enumerate(kinds):
            panel.add_patch(Rectangle((layer, 0), 0.86, 1, color=_COLOURS[kind]))
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        panel.set_title(f"{name}: {len(kinds)} layers, {counts}", loc="left", fontsize=10)
        panel.set_xlim(0, widest)
        panel.set_ylim(0, 1)
        bare(panel)
        ticks = [layer for layer in range(1, len(kinds) + 1) if layer == 1 or layer % 8 == 0]
        panel.set_xticks([layer - 0.57 for layer in ticks], [str(layer) for layer in ticks])
        panel.tick_params(length=0)
    shown = ("row", "column", "convolution")
    add_legend(figure, {kind: _COLOURS[kind] for kind in shown})
    return figure


def _layer_kinds(config: TextToImageConfig) -> list[PatternKind]:
    sizes = {"text_length": config.text_length, "grid_size": config.grid_size}
    patterns = layer_patterns(config.attention, config.num_layers, **sizes)
    return [pattern.kind for pattern in patterns]
