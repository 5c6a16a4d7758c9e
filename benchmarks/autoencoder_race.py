"""Discrete VAEs trained against the clock, ours and dalle-pytorch's, on the same scenes.

    make .venv-rivals/installed
    python benchmarks/autoencoder_race.py --minutes 5

Each is trained as its own recipe or script does, for so long and alone on the machine, and scored
on scenes that it is never trained on: the PSNR of what hard codes say, and how many codes it takes.
Prints a table, and writes benchmarks/results/autoencoder_race.json, a plot of the scores, and a
sheet of what each made of eight scenes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import CONTESTANTS, RESULTS, RIVALS_PYTHON
from contestants.shapes import AUTOENCODER_PIXELS
from PIL import Image

from armchair.core.device import usable_cores
from armchair.core.figures import new_figure, save_figure
from armchair.core.files import write_text
from armchair.core.provenance import provenance
from armchair.data.scenes import FRESH_WORLD, Scenes, ScenesConfig

RACERS = {
    "armchair, 1.0M parameters": (sys.executable, "ours.py", "1.0M"),
    "armchair, 0.43M parameters": (sys.executable, "ours.py", "0.43M"),
    "dalle-pytorch, 1.0M parameters": (str(RIVALS_PYTHON), "dalle_pytorch_.py", ""),
}
TRAINED_ON, SCORED_ON, SHOWN = 8192, 256, 8


def scenes(count: int, seed: int, split: str) -> np.ndarray:
    """Pictures, N H W 3 of uint8."""
    config = ScenesConfig(num_pictures=count, size=AUTOENCODER_PIXELS, seed=seed, split=split)
    return np.stack([Scenes(config).pixels(index) for index in range(count)])


def race(racer: tuple[str, str, str], pictures: Path, seconds: float) -> list[dict[str, float]]:
    """Train one and say how it was scored on the way."""
    python, script, variant = racer
    words = [python, script, "learn", str(pictures), str(seconds), variant]
    environment = {**os.environ, "OMP_NUM_THREADS": str(usable_cores())}
    done = subprocess.run(
        words, cwd=CONTESTANTS, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def plot(found: dict[str, list[dict[str, float]]]) -> None:
    """Draw the scores over time."""
    figure = new_figure(6.0, 3.6)
    axes = figure.add_subplot()
    for name, scores in found.items():
        minutes = [score["seconds"] / 60 for score in scores]
        axes.plot(minutes, [score["psnr_db"] for score in scores], marker="o", label=name)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("PSNR of hard codes, dB")
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, RESULTS / "autoencoder_race.png")


def main() -> None:
    """Race, print a table, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="of each")
    options = parser.parse_args()
    if not 0 < options.minutes < math.inf:
        parser.error(f"--minutes: got {options.minutes:g}, expected more than 0")
    if not RIVALS_PYTHON.exists():
        parser.error(f"there is no {RIVALS_PYTHON}: run `make .venv-rivals/installed`")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "scenes.npz"
        validation = scenes(SCORED_ON, FRESH_WORLD, "validation")
        np.savez(pictures, train=scenes(TRAINED_ON, 0, "train"), validation=validation)
        rows = [np.concatenate(validation[:SHOWN], axis=1)]
        for name, racer in RACERS.items():
            print(name, file=sys.stderr, flush=True)
            found[name] = race(racer, pictures, 60 * options.minutes)
            again = np.load(pictures.with_name("scenes-again.npy"))
            rows.append(np.concatenate(again, axis=1))
    print("| | pictures | PSNR dB | codes |\n|---|---|---|---|")
    for name, scores in found.items():
        last = scores[-1]
        print(f"| {name} | {last['pictures']} | {last['psnr_db']:.1f} | {last['codes_used']} |")
    result = {"minutes": options.minutes, "scores": found, **provenance(torch.device("cpu"))}
    write_text(RESULTS / "autoencoder_race.json", json.dumps(result, indent=2) + "\n")
    Image.fromarray(np.concatenate(rows)).save(RESULTS / "autoencoder_race-scenes.png")
    plot(found)


if __name__ == "__main__":
    main()
