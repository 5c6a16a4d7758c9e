"""The yardstick: DALL·E 1 against what people would use instead, in one run. `make bench`.

    python benchmarks/bench.py
    python benchmarks/bench.py --rows "sampling A" training

Every contestant is a process of its own (benchmarks/contestants), the rivals' in .venv-rivals;
within a row they take turns, so that all see the same machine, and each has the machine to itself.
Medians over turns; slow ones have fewer. The floor is measured before each row. Prints a table, and
writes benchmarks/results/bench.json and bench.md, a row as soon as it is there; rows that are not
measured stay as they were, with the commit, the date and the machine that they are of.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contestants.shapes import AUTOENCODER_BATCH, SHAPES
from floor import drawing_seconds, measure_floor, training_seconds

from armchair.core.device import has_fast_bf16
from armchair.core.files import write_text
from armchair.core.provenance import provenance

HERE = Path(__file__).parent
RESULTS, CONTESTANTS = HERE / "results", HERE / "contestants"
RIVALS_PYTHON = HERE.parent / ".venv-rivals" / "bin" / "python"
CPU = torch.device("cpu")
TURNS, ENOUGH_SECONDS = 5, 30  # no more turns of a contestant that has taken so long


@dataclass(frozen=True)
class Contestant:
    """One program in one setting.

    Attributes:
        name: As the table has it.
        script: Under benchmarks/contestants.
        variant: The setting; see the script.
        at_least: Times as fast as this that ours is to be, if there is such an aim.
    """

    name: str
    script: str
    variant: str
    at_least: float | None = None


@dataclass(frozen=True)
class Row:
    """One task in one shape.

    Attributes:
        name: What is done.
        task: See the contestants.
        shape: A name of `SHAPES`.
        batch: Pictures at once.
        rivals: Whom ours is compared with.
    """

    name: str
    task: str
    shape: str
    batch: int
    rivals: tuple[Contestant, ...]


OURS = Contestant("armchair", "ours.py", "paper")


def _rows(precisions: list[str]) -> list[Row]:
    """All rows; precisions are those that the hardware has."""

    def gpt2(at_least: float, only: str | None = None) -> tuple[Contestant, ...]:
        return tuple(
            Contestant(f"transformers GPT-2, {precision}", "gpt2.py", precision, at_least)
            for precision in precisions
            if only in (None, precision)
        )

    def theirs(at_least: float, *variants: str) -> tuple[Contestant, ...]:
        return tuple(
            Contestant(f"dalle-pytorch, {variant}", "dalle_pytorch_.py", variant, at_least)
            for variant in variants
        )

    def x_transformers() -> tuple[Contestant, ...]:
        return tuple(
            Contestant(f"x-transformers, {precision}", "x_transformers_.py", precision)
            for precision in precisions
        )

    rows = [
        Row(
            f"sampling A, batch {batch}",
            "sample",
            "A",
            batch,
            (*theirs(slow, *variants), *gpt2(fast), *x_transformers()),
        )
        for batch, slow, fast, variants in (
            (1, 40, 3, ("full", "mix", "full-cached")),
            (8, 60, 3, ("full", "mix", "full-cached")),
            (32, 60, 4, ("full",)),  # a quarter of an hour already
        )
    ]
    rows += [Row(f"sampling B, batch {batch}", "sample", "B", batch, gpt2(4)) for batch in (1, 8)]
    rows += [
        Row(
            f"training {shape}",
            "train",
            shape,
            SHAPES[shape].train_batch,
            (*theirs(3.5, "full", "mix"), *gpt2(2, precisions[-1])),
        )
        for shape in SHAPES
    ]
    rivals = (Contestant("dalle-pytorch", "dalle_pytorch_.py", "full", 3),)
    return [*rows, Row("training a discrete VAE", "autoencoder", "A", AUTOENCODER_BATCH, rivals)]


class Process:
    """A contestant at work."""

    def __init__(self, contestant: Contestant, row: Row) -> None:
        python = sys.executable if contestant == OURS else str(RIVALS_PYTHON)
        words = [row.task, row.shape, str(row.batch), contestant.variant]
        # What it says beside its answers; a pipe might run full.
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see `end`
        self.process = subprocess.Popen(
            [python, contestant.script, *words],
            cwd=CONTESTANTS,
            env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            errors = self.errors.read()[-2000:]
            self.end()
            raise RuntimeError(f"{self.process.args} ended:\n{errors}")
        return json.loads(line)

    def turn(self) -> dict[str, float]:
        """Seconds, units, and the peak of the memory."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Let it go."""
        self.process.communicate()
        self.errors.close()


def measure(row: Row) -> list[dict[str, Any]]:
    """Rates of ours and then of each rival, and how many times as fast ours is."""
    contestants = (OURS, *row.rivals)
    turns: dict[Contestant, list[dict[str, float]]] = {one: [] for one in contestants}
    processes: dict[Contestant, Process] = {}
    try:
        for one in contestants:
            processes[one] = Process(one, row)
        for _ in range(TURNS):
            for one, process in processes.items():
                if sum(turn["seconds"] for turn in turns[one]) < ENOUGH_SECONDS:
                    turns[one].append(process.turn())
    finally:
        for process in processes.values():
            process.end()
    rates = {one: [t["units"] / t["seconds"] for t in of_one] for one, of_one in turns.items()}
    own = statistics.median(rates[OURS])
    found = []
    for one in contestants:
        rate = statistics.median(rates[one])
        found.append(
            {
                "contestant": one.name,
                "units_per_second": rate,
                "lowest": min(rates[one]),
                "highest": max(rates[one]),
                "turns": len(rates[one]),
                "times_as_fast": own / rate,
                "at_least": one.at_least,
                "peak_bytes": max(turn["peak_bytes"] for turn in turns[one]),
                **processes[one].about,
            }
        )
    return found


def of_the_floor(
    row: Row, rate: float, floor: dict[str, float], dtype: torch.dtype
) -> float | None:
    """Which share of the machine's best ours reaches."""
    shape = SHAPES[row.shape]
    if row.task == "sample":
        return rate / (row.batch / drawing_seconds(shape, row.batch, floor, dtype))
    if row.task == "train":
        tokens = row.batch * shape.length
        return rate / (tokens / training_seconds(shape, row.batch, floor, dtype))
    return None


def table(rows: dict[str, Any]) -> str:
    """The figures as a Markdown page."""
    lines = [
        "# DALL·E 1 against its rivals",
        "",
        "Written by `make bench`. Medians, and lowest and highest; tokens a second, or pictures of",
        "the discrete VAE. The floor is the time that the machine needs for the products with",
        "weights, or to read them, and nothing else.",
        "",
        "| what | who | a second | ours is | to reach | peak memory | of the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for one in row["contestants"]:
            own = one["contestant"] == OURS.name
            spread = f"{one['lowest']:.4g} to {one['highest']:.4g}"
            cells = [
                name if own else "",
                f"{one['contestant']}, {one['precision']}" if own else one["contestant"],
                f"{one['units_per_second']:.4g} ({spread})",
                "" if own else f"{one['times_as_fast']:.2f}x",
                f"{one['at_least']:g}x" if one["at_least"] else "",
                f"{one['peak_bytes'] / 2**20:.0f} MiB",
                f"{row['of_the_floor']:.0%}" if own and row["of_the_floor"] else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| what | commit | date | machine | at its best |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        cells = [name, row["commit"], row["date"], row["hardware"], _in_words(row["floor"])]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _in_words(floor: dict[str, float]) -> str:
    units = {"float32": "FLOP", "bfloat16": "FLOP", "memory": "B", "cache": "B"}
    return ", ".join(f"{name} {rate / 1e9:.0f} G{units[name]}/s" for name, rate in floor.items())


def main() -> None:
    """Measure, print the table, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=[""], help="only rows that begin so")
    options = parser.parse_args()
    if not RIVALS_PYTHON.exists():
        parser.error(f"there is no {RIVALS_PYTHON}: run `make .venv-rivals/installed`")
    dtypes = [torch.float32, *([torch.bfloat16] if has_fast_bf16(CPU) else [])]
    rows = _rows([str(dtype).removeprefix("torch.") for dtype in dtypes])
    chosen = [row for row in rows if row.name.startswith(tuple(options.rows))]
    if not chosen:
        names = ", ".join(row.name for row in rows)
        parser.error(f"--rows: none begins with {options.rows}; there are {names}")
    file = RESULTS / "bench.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for row in chosen:
        print(row.name, file=sys.stderr, flush=True)
        floor = measure_floor(dtypes)
        contestants = measure(row)
        share = of_the_floor(row, contestants[0]["units_per_second"], floor, dtypes[-1])
        figures = {"contestants": contestants, "of_the_floor": share, "floor": floor}
        found[row.name] = {**figures, **provenance(CPU)}
        found = {one.name: found[one.name] for one in rows if one.name in found}
        write_text(file, json.dumps(found, indent=2) + "\n")
        write_text(RESULTS / "bench.md", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
