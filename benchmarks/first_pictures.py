"""From typing to pictures: how long the commands of the README take.

    python benchmarks/first_pictures.py

Runs each command cold, in a process of its own, with the sampler compiled before, and writes
benchmarks/results/first_pictures.json.
Ratios between machines mean little here; the figures say whether the promises of the README hold
on this one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from armchair.core.provenance import commit, hardware, today, version

RESULTS = Path(__file__).parent / "results"
REPEATS = 3


def seconds(words: list[str]) -> float:
    """Wall-clock seconds of one run of the command `armchair`."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "armchair", *words], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started


def measure() -> dict[str, list[float]]:
    """Seconds of each command, run by run."""
    prompt = "an armchair in the shape of an avocado"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = ["generate", prompt, "--seed", "0", "--out", str(folder / "out")]
        seconds(draw)  # compiles the sampler
        timings = {
            "help": [seconds(["--help"]) for _ in range(REPEATS)],
            "generate 1": [seconds(draw) for _ in range(REPEATS)],
            "generate 9": [seconds([*draw, "--count", "9"]) for _ in range(REPEATS)],
            "generate 9 by dalle2-scenes": [
                seconds([*draw, "--count", "9", "--model", "dalle2-scenes"]) for _ in range(REPEATS)
            ],
        }
        tiny = ["train", "scenes-tiny", "--out", str(folder / "tiny")]
        timings["train scenes-tiny"] = [seconds(tiny)]
    return timings


def main() -> None:
    """Measure and write."""
    timings = measure()
    result = {
        "seconds": timings,
        "median": {name: statistics.median(runs) for name, runs in timings.items()},
        "hardware": hardware(torch.device("cpu")),
        "torch": torch.__version__,
        "version": version(),
        "commit": commit(),
        "date": today(),
    }
    text = json.dumps(result, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "first_pictures.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
