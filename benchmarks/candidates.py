"""What ranking by CLIP is worth to DALL·E 1: figure 9c of its paper, with the models that ship.

    python benchmarks/candidates.py
    python benchmarks/candidates.py --candidates 64 --prompts 128 --kinds held_out

Draws candidates of prompts of seen and of held-out pairs, and has the scene reader judge the one
that CLIP ranks best among the first 1, 2, 4, … of them. Writes benchmarks/results/candidates.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import armchair
from armchair.cli.progress import progress_bar
from armchair.core.provenance import provenance
from armchair.evaluation.candidates import candidates_curve

RESULTS = Path(__file__).parent / "results"
MODEL, CLIP, KINDS = "dalle1-scenes", "clip-scenes", ("seen", "held_out")


def main() -> None:
    """Measure, print a table, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=16, help="pictures of each prompt")
    parser.add_argument("--prompts", type=int, default=256, help="prompts of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    model, clip = armchair.load(MODEL), armchair.load(CLIP)
    started = time.perf_counter()
    with progress_bar("candidates", "prompts") as advance:
        curve = candidates_curve(
            model,
            clip,
            num_prompts=options.prompts,
            candidates=options.candidates,
            kinds=options.kinds,
            on_progress=advance,
        )
    print(f"| best of | {' | '.join(options.kinds)} |\n|---|{'---|' * len(options.kinds)}")
    for row, count in enumerate(curve["counts"]):
        scores = (format(curve[kind][row]["all"], ".1%") for kind in options.kinds)
        print(f"| {count} | {' | '.join(scores)} |")
    result = {
        **curve,
        "models": [MODEL, CLIP],
        "minutes": (time.perf_counter() - started) / 60,
        **provenance(model.device),
    }
    (RESULTS / "candidates.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
