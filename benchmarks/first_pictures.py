"""From typing to pictures: how long the commands of the README take.

    python benchmarks/first_pictures.py

Runs each command cold, in a process of its own, with the sampler compiled before, and writes
benchmarks/results/first_pictures.json: seconds, and the peak of the process's memory.
Ratios between machines mean little here; the figures say whether the promises of the README hold
on this one.
"""

from __future__ import annotations

import json
import os
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


def run(words: list[str]) -> tuple[float, int]:
    """Wall-clock seconds and peak bytes of one run of the command `armchair`."""
    command = [sys.executable, "-m", "armchair", *words]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    if status:
        raise RuntimeError(f"armchair {' '.join(words)} failed")
    return elapsed, 1024 * usage.ru_maxrss


def measure() -> dict[str, list[tuple[float, int]]]:
    """Seconds and peak bytes of each command, run by run."""
    prompt = "an armchair in the shape of an avocado"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = ["generate", prompt, "--seed", "0", "--out", str(folder / "out")]
        run(draw)  # compiles the sampler
        runs = {
            "help": [run(["--help"]) for _ in range(REPEATS)],
            "generate 1": [run(draw) for _ in range(REPEATS)],
            "generate 9": [run([*draw, "--count", "9"]) for _ in range(REPEATS)],
            "generate 9 by dalle2-scenes": [
                run([*draw, "--count", "9", "--model", "dalle2-scenes"]) for _ in range(REPEATS)
            ],
        }
        tiny = ["train", "scenes-tiny", "--out", str(folder / "tiny")]
        runs["train scenes-tiny"] = [run(tiny)]
    return runs


def main() -> None:
    """Measure and write."""
    runs = measure()
    timings = {name: [seconds for seconds, _ in of_one] for name, of_one in runs.items()}
    result = {
        "seconds": timings,
        "median": {name: statistics.median(of_one) for name, of_one in timings.items()},
        "peak_bytes": {name: max(peak for _, peak in of_one) for name, of_one in runs.items()},
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
