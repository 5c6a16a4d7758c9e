"""What recording kernels is worth on a GPU: drawing with and without CUDA graphs.

    python benchmarks/cuda_graphs.py

Draws the same prompt with each DALL·E both ways in turns, one picture and several at once, and
says whether they are the same. Writes benchmarks/results/cuda_graphs.json.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from timing import seconds

import armchair
from armchair.core.provenance import provenance
from armchair.sampling import diffusion, tokens

RESULTS = Path(__file__).parent / "results"
MODELS, PROMPT = ("dalle1-scenes", "dalle2-scenes"), "an armchair in the shape of an avocado"
COUNTS, TURNS = (1, 9, 32), 5


def compare(model: armchair.DALLE1 | armchair.DALLE2, count: int) -> dict[str, float | bool]:
    """Median seconds of `count` pictures both ways, and whether they are the same pictures."""
    drawn: dict[str, list[Image.Image]] = {}

    def draw(name: str) -> None:
        drawn[name] = model.generate(PROMPT, count=count, seed=0, batch_size=count)

    def plainly() -> None:
        changes = {"graphed": lambda function, device: function}
        with mock.patch.multiple(diffusion, **changes), mock.patch.multiple(tokens, **changes):
            draw("plain")

    plainly()  # libraries set themselves up
    turns = [(seconds(plainly), seconds(lambda: draw("recorded"))) for _ in range(TURNS)]
    plain, recorded = (statistics.median(runs) for runs in zip(*turns, strict=True))
    pairs = zip(drawn["plain"], drawn["recorded"], strict=True)
    return {
        "plain seconds": plain,
        "recorded seconds": recorded,
        "times as fast": statistics.median(a / b for a, b in turns),
        "same": all(one.tobytes() == other.tobytes() for one, other in pairs),
    }


def main() -> None:
    """Measure, print a table, and write it down."""
    found: dict[str, dict[str, dict[str, float | bool]]] = {}
    print("| model | pictures | as they come | recorded | times as fast | same |")
    print("|---|---|---|---|---|---|")
    for name in MODELS:
        model = armchair.load(name, device="cuda")
        assert isinstance(model, armchair.DALLE1 | armchair.DALLE2)
        found[name] = {}
        for count in COUNTS:
            row = found[name][str(count)] = compare(model, count)
            cells = [f"{row['plain seconds']:.2f} s", f"{row['recorded seconds']:.2f} s"]
            cells += [f"{row['times as fast']:.2f}", "yes" if row["same"] else "no"]
            print(f"| {name} | {count} | {' | '.join(cells)} |", flush=True)
    about = {"torch": torch.__version__, **provenance(torch.device("cuda"))}
    text = json.dumps({"models": found, **about}, indent=2)
    (RESULTS / "cuda_graphs.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
