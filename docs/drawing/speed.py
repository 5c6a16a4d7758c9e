"""The figure of the speed: DALL·E 1 beside its rivals, from what the bench wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drawing.style import AMBER, BLUE, FAINT, GREEN, PIT, new_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BENCH = Path(__file__).parents[2] / "benchmarks" / "results" / "bench.json"
# Names in the bench begin so; of each group the fastest is shown, but ours with 8 bits.
GROUPS = {
    "armchair": ("armchair", GREEN),
    "dalle-pytorch": ("dalle-pytorch", FAINT),
    "dalle-pytorch, its cache": ("dalle-pytorch, full-cached", AMBER),
    "GPT-2 of transformers": ("transformers", BLUE),
    "x-transformers": ("x-transformers", PIT),
}
PANELS = {
    "drawing, shape A (tokens a second)": {
        "1 picture": "sampling A, batch 1",
        "8": "sampling A, batch 8",
        "32": "sampling A, batch 32",
    },
    "drawing, shape B (tokens)": {
        "1 picture": "sampling B, batch 1",
        "8": "sampling B, batch 8",
    },
    "learning (tokens)": {"shape A": "training A", "shape B": "training B"},
    "learning (pictures)": {"discrete VAE": "training a discrete VAE"},
}


def draw_speed() -> Figure:
    """Bars of each task, on a scale of tens."""
    rows: dict[str, Any] = json.loads(BENCH.read_text("utf-8"))
    sizes = [len(bars) for bars in PANELS.values()]
    figure, axes = new_figure(
        12, 3.4, columns=len(PANELS), width_ratios=[n**1.3 + 0.6 for n in sizes]
    )
    for panel, (title, bars) in zip(axes[0], PANELS.items(), strict=True):
        _draw_bars(panel, {label: rows[name]["contestants"] for label, name in bars.items()})
        panel.set_title(title, fontsize=9)
    colours = {name: colour for name, (_, colour) in GROUPS.items()}
    handles = [axes[0, 0].bar(0, 0, color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_bars(panel: Axes, tasks: dict[str, list[dict[str, Any]]]) -> None:
    for place, contestants in enumerate(tasks.values()):
        rates = _fastest(contestants)
        width = 0.8 / len(rates)
        for number, (name, rate) in enumerate(rates.items()):
            at = place - 0.4 + width * (number + 0.5)
            panel.bar(at, rate, width=width * 0.9, color=GROUPS[name][1])
            label = f"{rate:.0f}" if rate < 1000 else f"{rate / 1000:.2g}k"
            panel.annotate(label, (at, rate), ha="center", va="bottom", fontsize=5.5)
    panel.set_yscale("log")
    panel.set_xticks(range(len(tasks)), list(tasks))
    panel.set_ylim(10, 2 * panel.get_ylim()[1])
    panel.tick_params(axis="x", length=0)


def _fastest(contestants: list[dict[str, Any]]) -> dict[str, float]:
    """The best rate of each group that took part."""
    rates: dict[str, float] = {}
    for one in contestants:
        if one["contestant"] == "armchair, int8":
            continue
        begins = {name: start for name, (start, _) in GROUPS.items()}
        fitting = [name for name, start in begins.items() if one["contestant"].startswith(start)]
        group = max(fitting, key=lambda name: len(begins[name]))
        rates[group] = max(rates.get(group, 0.0), one["units_per_second"])
    return {name: rates[name] for name in GROUPS if name in rates}
