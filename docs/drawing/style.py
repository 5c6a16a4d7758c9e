"""The look that the figures of the documentation share: one palette, one set of fonts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

INK = "#2b2e2a"
FAINT = "#b9bdb4"
HIDDEN = "#eeeee8"
GREEN = "#6a9c45"  # image tokens, and whatever comes first
AMBER = "#e6ad3c"  # text tokens
PIT = "#7a3b1c"  # what a figure is about
BLUE = "#3f6f9e"

SEEN = ListedColormap([HIDDEN, AMBER, GREEN, PIT])  # hidden, text, image, the token itself
HEAT = LinearSegmentedColormap.from_list("heat", ["#fbfbf7", AMBER, PIT])

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "grid.color": "#e4e5e0",
    "lines.linewidth": 2,
    "savefig.dpi": 130,
}


def new_figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **layout: Any
) -> tuple[Figure, np.ndarray]:
    """An empty figure of so many inches, and its axes as an array of `rows` by `columns`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **layout)


def draw_cells(axes: Axes, values: np.ndarray, *, edge: float) -> None:
    """Draw a matrix of indices into `SEEN` as cells, first row on top, without ticks."""
    axes.pcolormesh(values, cmap=SEEN, vmin=0, vmax=3, edgecolors="white", linewidth=edge)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    bare(axes)


def bare(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def add_legend(figure: Figure, colours: dict[str, str]) -> None:
    """Say below a figure what its colours mean."""
    handles = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
