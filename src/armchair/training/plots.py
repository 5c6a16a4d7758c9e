"""Curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from armchair.core.errors import UsageError
from armchair.core.figures import new_figure, save_figure
from armchair.training.observers import read_metrics

_COLUMNS = 3
_STYLES: dict[str, dict[str, Any]] = {"train": {"linewidth": 1}, "validation": {"marker": "o"}}


def plot_metrics(metrics: Path, picture: Path, *, title: str) -> None:
    """Draw a panel for each number of a metrics.jsonl, training and validation together.

    Raises:
        UsageError: matplotlib is missing, or there is nothing to draw yet.
    """
    figure = new_figure(4.5 * _COLUMNS, 3.0)
    rows = read_metrics(metrics)
    names = sorted({name for row in rows for name in row} - {"kind", "images_seen"})
    if not names:
        raise UsageError(f"{metrics} holds no numbers yet", hint="let the run go on a little")
    height = -(-len(names) // _COLUMNS)
    figure.set_figheight(3 * height)
    figure.suptitle(title)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(height, _COLUMNS, place)
        for kind, style in _STYLES.items():
            points = [
                (row["images_seen"], row[name])
                for row in rows
                if row["kind"] == kind and row.get(name) is not None
            ]
            if points:
                seen, values = zip(*points, strict=True)
                axes.plot(seen, values, label=kind, **style)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("pictures seen", fontsize=8)
        if axes.lines:
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    save_figure(figure, picture)
