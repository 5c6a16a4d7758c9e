"""How the time of a drawn token grows with the grid, for each pattern of attention.

    python benchmarks/grid_growth.py

Decodes the last tokens of pictures of 16x16, 32x32 and 64x64 codes in one layer of shape A
(benchmarks/contestants/shapes.py), eight pictures of one prompt, all grids in turns. Writes
benchmarks/results/grid_growth.json and grid_growth.png.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from contestants.shapes import SHAPES, Shape
from timing import seconds

from armchair.core.figures import new_figure, save_figure
from armchair.core.provenance import provenance
from armchair.models.sequence.compiled_decoder import CompiledDecoder
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.nn.masks import AttentionPattern, PatternKind

RESULTS = Path(__file__).parent / "results"
KINDS: tuple[PatternKind, ...] = get_args(PatternKind)
GRIDS, ROWS, TOKENS, WARM_UP = (16, 32, 64), 8, 200, 10


def _decoder(kind: PatternKind, shape: Shape) -> CompiledDecoder:
    """Of a single layer; what is in its cache costs nothing."""
    sizes = {**shape.config, "num_layers": 1, "image_vocab_size": 1}
    model = TextToImageTransformer(TextToImageConfig(**sizes))
    pattern = AttentionPattern(kind=kind, text_length=shape.text_length, grid_size=shape.grid_size)
    model.patterns = (pattern,)
    cache = model.new_cache(num_prompts=1)
    return CompiledDecoder(model, cache, torch.zeros(ROWS, dtype=torch.long))


@torch.no_grad()
def growth() -> dict[str, dict[int, float]]:
    """Median microseconds of a layer's step, by pattern and side of the grid."""
    shapes = {side: replace(SHAPES["A"], grid_size=side) for side in GRIDS}
    layers = {(k, side): _decoder(k, shape) for k in KINDS for side, shape in shapes.items()}
    codes = torch.zeros(ROWS, dtype=torch.long)
    found: dict[str, dict[int, list[float]]] = {k: {g: [] for g in GRIDS} for k in KINDS}
    for turn in range(WARM_UP + TOKENS):
        for (kind, side), decoder in layers.items():
            index = side**2 - 1 - turn % side
            time = seconds(lambda d=decoder, i=index: d(codes, i))
            if turn >= WARM_UP:
                found[kind][side].append(1e6 * time)
    return {k: {g: statistics.median(t) for g, t in row.items()} for k, row in found.items()}


def plot(found: dict[str, dict[int, float]]) -> None:
    """Draw the curves."""
    figure = new_figure(6.0, 3.6)
    axes = figure.add_subplot()
    for kind, row in found.items():
        axes.plot([side**2 for side in row], list(row.values()), marker="o", label=kind)
    axes.set_xscale("log", base=4)
    axes.set_xticks([side**2 for side in GRIDS], [f"{side}x{side}" for side in GRIDS])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("codes of a picture")
    axes.set_ylabel("microseconds a layer and step")
    axes.set_title(f"The last token of a picture, {ROWS} pictures at once", fontsize=10)
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, RESULTS / "grid_growth.png")


def main() -> None:
    """Measure, print a table, draw it, and write it down."""
    found = growth()
    print(f"| | {' | '.join(f'{side}x{side}' for side in GRIDS)} |\n|---|{'---|' * len(GRIDS)}")
    for kind, row in found.items():
        print(f"| {kind} | {' | '.join(f'{time:.0f} µs' for time in row.values())} |")
    result = {
        "microseconds": {k: {str(g): t for g, t in row.items()} for k, row in found.items()},
        **provenance(torch.device("cpu")),
    }
    (RESULTS / "grid_growth.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    plot(found)


if __name__ == "__main__":
    main()
