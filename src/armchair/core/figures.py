"""Plots, which need the extra `plots`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from armchair.core.errors import UsageError
from armchair.core.files import atomic_path


def check_plots() -> None:
    """Make sure that plots can be drawn, before long work starts.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        hint = "pip install 'armchair[plots]'"
        raise UsageError("matplotlib is not installed", hint=hint) from error


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of this size in inches.

    Raises:
        UsageError: matplotlib is missing.
    """
    check_plots()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, atomically.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
