"""`armchair plot`: draw the curves of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import tyro

from armchair.cli.options import read_options


@dataclass(kw_only=True)
class PlotOptions:
    """Draw every curve of a run's metrics.jsonl, training and validation, as PNG files."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder, or one of its stages."""


def run(words: Sequence[str]) -> None:
    """Draw the curves."""
    options = read_options(PlotOptions, words, verb="plot")

    from armchair.core.errors import UsageError
    from armchair.training.plots import plot_metrics
    from armchair.training.recipe import Stage

    folders = [options.run, *(options.run / stage for stage in get_args(Stage))]
    found = [folder for folder in folders if (folder / "metrics.jsonl").exists()]
    if not found:
        hint = "give the folder that `armchair train` was given as --out"
        raise UsageError(f"{options.run} holds no metrics.jsonl", hint=hint)
    for folder in found:
        path = folder / "curves.png"
        plot_metrics(folder / "metrics.jsonl", path, title=folder.name)
        print(path)
