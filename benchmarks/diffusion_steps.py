"""What few steps cost: a DALL·E 2 drawn in its own steps, and in 250 of one part after another.

    python benchmarks/diffusion_steps.py dalle2-scenes --prompts 256

Draws the same prompts of seen and held-out pairs under the same seeds, and has the scene reader
judge them. Prior and decoder are judged by the decoder's pictures, merely resized, which the reader
reads as well as enlarged ones. The upsamplers, slow in 250 steps, enlarge a sixteenth of them, and
are also compared with themselves in few steps (PSNR). Prints a table, and writes
benchmarks/results/diffusion_steps.json, with every row as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from reading import verdicts, without_upsamplers

import armchair
from armchair.core.errors import UsageError
from armchair.core.provenance import provenance
from armchair.data.scenes import prompts
from armchair.evaluation.scene_reader import SceneReader

RESULTS = Path(__file__).parent / "results"
KINDS, MANY, AT_ONCE = ("seen", "held_out"), 250, 32
SMALL_ROWS: tuple[dict[str, int], ...] = (  # steps that differ from the model's own
    {},
    {"prior_steps": MANY},
    {"prior_steps": MANY, "decoder_steps": MANY},
)
LARGE_ROWS: tuple[dict[str, int], ...] = (
    {},
    {"first_upsampler_steps": MANY, "second_upsampler_steps": MANY},
)


def measure(
    model: armchair.DALLE2, reader: SceneReader, steps: Mapping[str, int], num_prompts: int
) -> tuple[dict[str, Any], list[Image.Image]]:
    """For each kind of prompt, whether each picture is right; seconds a picture; the pictures."""
    settings = model.settings(**steps)
    row: dict[str, Any] = {"steps": dict(steps), "prompts": num_prompts}
    seconds, drawn = 0.0, list[Image.Image]()
    for kind in KINDS:
        asked = prompts(kind, num_prompts, 0)
        started = time.perf_counter()
        pictures = model.draw(
            [prompt.text for prompt in asked],
            [(0, index) for index in range(num_prompts)],
            settings=settings,
            batch_size=AT_ONCE,
        )
        drawn += pictures
        seconds += time.perf_counter() - started
        row[kind] = verdicts(reader, asked, pictures)
    return {**row, "seconds_a_picture": seconds / (len(KINDS) * num_prompts)}, drawn


def _psnr_db(one: list[Image.Image], other: list[Image.Image]) -> float:
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in zip(one, other, strict=True)]
    return float(np.mean([10 * np.log10(255**2 / np.mean((a - b) ** 2)) for a, b in pairs]))


def main() -> None:
    """Measure the model that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a DALL·E 2: a shipped model or a bundle's folder")
    parser.add_argument("--prompts", type=int, default=256, help="of each kind (default: 256)")
    options = parser.parse_args()
    if options.prompts < 1:
        raise UsageError(
            "prompts", got=options.prompts, expected="at least 1", hint="256 tell models apart"
        )
    model, reader = armchair.load(options.model), SceneReader()
    if not isinstance(model, armchair.DALLE2):
        raise UsageError("model", got=options.model, expected="a DALL·E 2", hint="see this file")
    small = without_upsamplers(model)
    names = [name for name in model.setting_names if name.endswith("_steps")]
    usual = {name: getattr(model.sampling, name) for name in names}
    result: dict[str, Any] = {"usual": usual, "rows": [], **provenance(model.device)}
    print("| steps | prompts of each kind | seen | held out | s a picture |")
    print("|---|---|---|---|---|", flush=True)
    few = max(1, options.prompts // 16)
    plan = [(small, steps, options.prompts) for steps in SMALL_ROWS if set(steps) <= set(names)]
    plan += [(model, steps, few) for steps in LARGE_ROWS if model.painter.upsamplers]
    pictures: list[list[Image.Image]] = []
    for painted_by, steps, num_prompts in plan:
        row, drawn = measure(painted_by, reader, steps, num_prompts)
        row["upsampled"] = painted_by is model
        if painted_by is model:
            pictures.append(drawn)
            row["psnr_db_to_few_steps"] = None if not steps else _psnr_db(pictures[0], drawn)
        result["rows"].append(row)
        told = painted_by.setting_names
        shown = " + ".join(str(steps.get(name, usual[name])) for name in names if name in told)
        scores = " | ".join(f"{np.mean(row[kind]):.1%}" for kind in KINDS)
        seconds = f"{row['seconds_a_picture']:.2f}"
        print(f"| {shown} | {num_prompts} | {scores} | {seconds} |", flush=True)
        (RESULTS / "diffusion_steps.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
