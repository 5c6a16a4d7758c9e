"""How the time of a drawn token grows with the grid, for each pattern of attention.

    python benchmarks/grid_growth.py

Decodes the last tokens of pictures of 16x16, 32x32 and 64x64 codes in one layer of shape A
(benchmarks/contestants/shapes.py), eight pictures of one prompt, all grids in turns. Also says how
many bytes the caches of 64 pictures take in shape B, against a cache of every token for every row.
Writes benchmarks/results/grid_growth.json and grid_growth.png.
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
from armchair.nn.attention import JointAttention
from armchair.nn.kv_cache import KVCache, LayerCache
from armchair.nn.masks import AttentionPattern, PatternKind, layer_patterns

RESULTS = Path(__file__).parent / "results"
KINDS: tuple[PatternKind, ...] = get_args(PatternKind)
GRIDS, ROWS, TOKENS, WARM_UP = (16, 32, 64), 8, 60, 10


def _layer(kind: PatternKind, shape: Shape) -> tuple[JointAttention, LayerCache]:
    """A layer and a cache whose slots are as they come: what is in them costs nothing."""
    pattern = AttentionPattern(kind=kind, text_length=shape.text_length, grid_size=shape.grid_size)
    layer = JointAttention(shape.dim, num_heads=shape.num_heads, pattern=pattern).eval()
    head_dim = shape.dim // shape.num_heads
    cache = KVCache.allocate([pattern], num_prompts=1, num_heads=shape.num_heads, head_dim=head_dim)
    return layer, cache.expand(torch.zeros(ROWS, dtype=torch.long)).layers[0]


@torch.no_grad()
def growth() -> dict[str, dict[int, float]]:
    """Median microseconds of a layer's step, by pattern and side of the grid."""
    shapes = {side: replace(SHAPES["A"], grid_size=side) for side in GRIDS}
    layers = {(k, side): _layer(k, shape) for k in KINDS for side, shape in shapes.items()}
    x = torch.randn(ROWS, 1, SHAPES["A"].dim)
    found: dict[str, dict[int, list[float]]] = {k: {g: [] for g in GRIDS} for k in KINDS}
    for turn in range(WARM_UP + TOKENS):
        for (kind, side), (layer, cache) in layers.items():
            index = side**2 - 1 - turn % side
            time = seconds(lambda a=layer, c=cache, i=index: a.decode(x, c, i))
            if turn >= WARM_UP:
                found[kind][side].append(1e6 * time)
    return {k: {g: statistics.median(t) for g, t in row.items()} for k, row in found.items()}


def cache_bytes(candidates: int = 64) -> dict[str, int]:
    """Of so many pictures of one prompt in shape B, in float32: ours, and every token of each."""
    shape = SHAPES["B"]
    sizes = {"text_length": shape.text_length, "grid_size": shape.grid_size}
    cache = KVCache.allocate(
        layer_patterns("paper", shape.num_layers, **sizes),
        num_prompts=1,
        num_heads=shape.num_heads,
        head_dim=shape.dim // shape.num_heads,
    )
    ours = cache.expand(torch.zeros(candidates, dtype=torch.long)).num_bytes
    return {"ours": ours, "dense": 4 * 2 * candidates * shape.num_layers * shape.length * shape.dim}


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
    found, sizes = growth(), cache_bytes()
    print(f"| | {' | '.join(f'{side}x{side}' for side in GRIDS)} |\n|---|{'---|' * len(GRIDS)}")
    for kind, row in found.items():
        print(f"| {kind} | {' | '.join(f'{time:.0f} µs' for time in row.values())} |")
    times = sizes["dense"] / sizes["ours"]
    print(f"caches of 64 pictures: {sizes['ours']:,} bytes, dense {sizes['dense']:,}: {times:.1f}x")
    result = {
        "microseconds": {k: {str(g): t for g, t in row.items()} for k, row in found.items()},
        "cache_bytes": sizes,
        **provenance(torch.device("cpu")),
    }
    (RESULTS / "grid_growth.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    plot(found)


if __name__ == "__main__":
    main()
