"""What a DALL·E 1 loses with its transformer's weights in fewer bits.

    python benchmarks/weight_bits.py dalle1-scenes --prompts 256

Draws the same prompts of every kind under the same seeds with weights of 32, 16, and 8 bits, and
has the scene reader judge them. Writes benchmarks/results/weight_bits.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from reading import verdicts

import armchair
from armchair.core.errors import UsageError
from armchair.core.files import write_text
from armchair.core.provenance import provenance
from armchair.data.scenes import prompts
from armchair.evaluation.scene_reader import SceneReader
from armchair.pipelines.dalle1 import WEIGHT_DTYPES

RESULT = Path(__file__).parent / "results" / "weight_bits.json"
KINDS = ("seen", "held_out", "relations")


def main() -> None:
    """Draw, judge, print a table, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=256, help="of each kind")
    options = parser.parse_args()
    model = armchair.load(options.model, device="cpu", kinds=("dalle1",))
    if options.prompts < 1:
        raise UsageError("prompts", got=options.prompts, expected="at least 1")
    reader, rows = SceneReader(), {}
    for precision in WEIGHT_DTYPES:
        settings, found = model.settings(precision=precision), {}
        started = time.perf_counter()
        for kind in KINDS:
            asked = prompts(kind, options.prompts, 0)
            keys = [(0, index) for index in range(options.prompts)]
            pictures = model.draw([prompt.text for prompt in asked], keys, settings=settings)
            right = verdicts(reader, asked, pictures)
            found[kind] = sum(right) / len(right)
        rows[precision] = {**found, "seconds": time.perf_counter() - started}
        print(precision, *(f"{kind} {found[kind]:.1%}" for kind in KINDS), flush=True)
    result = {"model": options.model, "prompts": options.prompts, "right": rows}
    write_text(RESULT, json.dumps({**result, **provenance(torch.device("cpu"))}, indent=2) + "\n")


if __name__ == "__main__":
    main()
