"""What few steps cost: a DALL·E 2 drawn in its own steps, and in 250 of one part after another.

    python benchmarks/diffusion_steps.py dalle2-scenes

Draws the same prompts of seen and held-out pairs under the same seeds, and has the scene reader
judge them. The upsamplers, slow in 250 steps, draw an eighth of them. Prints a table, and
writes benchmarks/results/diffusion_steps.json, with every row as soon as it is there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import armchair
from armchair.core.errors import UsageError
from armchair.core.provenance import provenance
from armchair.data.scenes import prompts
from armchair.evaluation.scene_reader import SceneReader, judge

RESULTS = Path(__file__).parent / "results"
KINDS, PROMPTS, MANY, AT_ONCE = ("seen", "held_out"), 256, 250, 32
ROWS: tuple[tuple[dict[str, int], int], ...] = (  # steps that differ, and prompts of each kind
    ({}, PROMPTS),
    ({"prior_steps": MANY}, PROMPTS),
    ({"decoder_steps": MANY}, PROMPTS),
    ({"prior_steps": MANY, "decoder_steps": MANY}, PROMPTS),
    ({"first_upsampler_steps": MANY, "second_upsampler_steps": MANY}, PROMPTS // 8),
)


def measure(
    model: armchair.DALLE2, reader: SceneReader, steps: Mapping[str, int], num_prompts: int
) -> dict[str, Any]:
    """For each kind of prompt, whether each picture is right; and seconds a picture."""
    settings = model.settings(**steps)
    row: dict[str, Any] = {"steps": dict(steps), "prompts": num_prompts}
    seconds = 0.0
    for kind in KINDS:
        asked = prompts(kind, num_prompts, 0)
        started = time.perf_counter()
        pictures = model.draw(
            [prompt.text for prompt in asked],
            [(0, index) for index in range(num_prompts)],
            settings=settings,
            batch_size=AT_ONCE,
        )
        seconds += time.perf_counter() - started
        read = [reader.read(np.asarray(picture)) for picture in pictures]
        verdicts = [judge(prompt, one)["all"] for prompt, one in zip(asked, read, strict=True)]
        row[kind] = [bool(verdict) for verdict in verdicts]
    return {**row, "seconds_a_picture": seconds / (len(KINDS) * num_prompts)}


def main() -> None:
    """Measure the model that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    model, reader = armchair.load(sys.argv[1]), SceneReader()
    if not isinstance(model, armchair.DALLE2):
        raise UsageError("model", got=sys.argv[1], expected="a DALL·E 2", hint="see this file")
    names = [name for name in model.setting_names if name.endswith("_steps")]
    usual = {name: getattr(model.sampling, name) for name in names}
    rows: list[dict[str, Any]] = []
    print("| steps | prompts of each kind | seen | held out | in its own | s a picture |")
    print("|---|---|---|---|---|---|", flush=True)
    for steps, num_prompts in ROWS:
        if not set(steps) <= set(names):
            continue
        rows.append(measure(model, reader, steps, num_prompts))
        shown = " + ".join(str(steps.get(name, usual[name])) for name in names)
        scores = [f"{np.mean(rows[-1][kind]):.1%}" for kind in KINDS]
        own = [f"{np.mean(rows[0][kind][:num_prompts]):.1%}" for kind in KINDS]
        seconds = f"{rows[-1]['seconds_a_picture']:.2f}"
        print(f"| {shown} | {num_prompts} | {' | '.join(scores)} | {' / '.join(own)} | {seconds} |")
        result = {"usual": usual, "rows": rows, **provenance(model.device)}
        (RESULTS / "diffusion_steps.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
