"""The yardstick: DALL·E 1 against what people would use instead, in one run. `make bench`.

    python benchmarks/bench.py
    python benchmarks/bench.py --rows "sampling A" training

Every contestant is a process of its own (benchmarks/contestants), the rivals' in .venv-rivals;
within a row they take turns, so that all see the same machine, and each has the machine to itself.
A turn takes two seconds or more: an update of 0.2 s would mostly show how its data comes back to
caches that the others have filled. Medians over turns; slow ones have fewer. The floor is measured
before each row. Prints a table, and writes benchmarks/results/bench.json and bench.md, a row as
soon as it is there; rows that are not measured stay as they were, with the commit, the date and the
machine that they are of. On another machine give another name with --out; on part of one, start it
under `taskset`. With --without-amx nobody multiplies in tiles, nor does the floor, as on processors
that have AVX512 and no more: bench-without-amx.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from contestants.shapes import AUTOENCODER_BATCH, SHAPES
from floor import drawing_seconds, measure_floor, training_seconds
from llvmlite import binding as llvm

from armchair.core.device import has_fast_bf16, usable_cores
from armchair.core.files import write_text
from armchair.core.provenance import provenance

HERE = Path(__file__).parent
RESULTS, CONTESTANTS = HERE / "results", HERE / "contestants"
RIVALS_PYTHON = HERE.parent / ".venv-rivals" / "bin" / "python"
CPU = torch.device("cpu")
TURN_SECONDS = 2  # at least
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
        ours: In which precisions; int8 is no party to comparisons.
        rivals: Whom the best of ours is compared with.
    """

    name: str
    task: str
    shape: str
    batch: int
    ours: tuple[Contestant, ...]
    rivals: tuple[Contestant, ...]


def _ours(*precisions: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(f"armchair, {one}", "ours.py", one) for one in precisions)


DRAWING = _ours("float32", "bfloat16", "int8")


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
            DRAWING,
            (*theirs(slow, *variants), *gpt2(fast), *x_transformers()),
        )
        for batch, slow, fast, variants in (
            (1, 40, 3, ("full", "mix", "full-cached")),
            (8, 60, 3, ("full", "mix", "full-cached")),
            (32, 60, 4, ("full", "full-cached")),  # a quarter of an hour on slow cores
        )
    ]
    rows += [
        Row(f"sampling B, batch {batch}", "sample", "B", batch, DRAWING, gpt2(4))
        for batch in (1, 8)
    ]
    rows += [
        Row(
            f"training {shape}",
            "train",
            shape,
            SHAPES[shape].train_batch,
            # All hold their memory at once: in shape B there is no room for one more in 24 GiB,
            # so that float32 has a row of its own, without rivals.
            _ours(*(precisions if shape == "A" else precisions[-1:])),
            (*theirs(3.5, *_in_each(precisions, "full", "mix")), *gpt2(2, precisions[-1])),
        )
        for shape in SHAPES
    ]
    if precisions != ["float32"]:
        batch = SHAPES["B"].train_batch
        rows.append(Row("training B, float32", "train", "B", batch, _ours("float32"), ()))
    rivals = theirs(3, *_in_each(precisions, "full"))
    ours = _ours(precisions[-1])
    row = Row("training a discrete VAE", "autoencoder", "A", AUTOENCODER_BATCH, ours, rivals)
    return [*rows, row]


def _in_each(precisions: list[str], *variants: str) -> list[str]:
    """Variants for training, in float32 as they are called."""
    return [
        variant if precision == "float32" else f"{variant}-{precision}"
        for variant in variants
        for precision in precisions
    ]


class Process:
    """A contestant at work."""

    def __init__(self, contestant: Contestant, row: Row) -> None:
        python = sys.executable if contestant in row.ours else str(RIVALS_PYTHON)
        words = [row.task, row.shape, str(row.batch), contestant.variant]
        # What it says beside its answers; a pipe might run full.
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see `end`
        self.process = subprocess.Popen(
            [python, contestant.script, *words],
            cwd=CONTESTANTS,
            env={**os.environ, "OMP_NUM_THREADS": str(usable_cores())},
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
            code = self.process.wait()
            self.errors.seek(0)
            errors = self.errors.read()[-2000:]
            self.end()
            raise RuntimeError(f"{self.process.args} ended with {code}:\n{errors}")
        return json.loads(line)

    def turn(self) -> dict[str, float]:
        """Seconds, units, and the peak of the memory."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{TURN_SECONDS}\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Let it go."""
        self.process.communicate()
        self.errors.close()


def measure(row: Row, most_turns: int = TURNS) -> list[dict[str, Any]]:
    """Rates of ours and then of each rival, and how many times as fast the best of ours is."""
    contestants = (*row.ours, *row.rivals)
    turns: dict[Contestant, list[dict[str, float]]] = {one: [] for one in contestants}
    processes: dict[Contestant, Process] = {}
    try:
        for one in contestants:
            processes[one] = Process(one, row)
        for _ in range(most_turns):
            for one, process in processes.items():
                if sum(turn["seconds"] for turn in turns[one]) < ENOUGH_SECONDS:
                    turns[one].append(process.turn())
    finally:
        for process in processes.values():
            process.end()
    rates = {one: [t["units"] / t["seconds"] for t in of_one] for one, of_one in turns.items()}
    own = max(statistics.median(rates[one]) for one in row.ours if one.variant != "int8")
    found = []
    for one in contestants:
        rate = statistics.median(rates[one])
        found.append(
            {
                "contestant": one.name,
                "is_ours": one in row.ours,
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


def of_the_floor(row: Row, contestant: dict[str, Any], floor: dict[str, float]) -> float:
    """Which share of the machine's best one of ours reaches."""
    shape, rate = SHAPES[row.shape], contestant["units_per_second"]
    dtype = getattr(torch, contestant["precision"])
    if row.task == "sample":
        return rate / (row.batch / drawing_seconds(shape, row.batch, floor, dtype))
    if row.task == "train":
        tokens = row.batch * shape.length
        return rate / (tokens / training_seconds(shape, row.batch, floor, dtype))
    return rate * contestant["operations_per_unit"] / floor[contestant["precision"]]


def table(rows: dict[str, Any]) -> str:
    """The figures as a Markdown page."""
    lines = [
        "# DALL·E 1 against its rivals",
        "",
        "Written by `make bench`. Medians, and lowest and highest; tokens a second, or pictures of",
        "the discrete VAE; sampled at once are pictures of one caption. Rivals are compared",
        "with the best of ours, int8 aside. The floor is the time in which the machine reads the",
        "weights, or multiplies with them (in training also what attention multiplies), as fast as",
        "it copies large blocks and torch multiplies large matrices, and nothing else.",
        "",
        "| what | who | a second | ours is | to reach | peak memory | of the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for number, one in enumerate(row["contestants"]):
            spread = f"{one['lowest']:.4g} to {one['highest']:.4g}"
            cells = [
                "" if number else name,
                one["contestant"],
                f"{one['units_per_second']:.4g} ({spread})",
                "" if one["is_ours"] else f"{one['times_as_fast']:.2f}x",
                f"{one['at_least']:g}x" if one["at_least"] else "",
                f"{one['peak_bytes'] / 2**20:.0f} MiB",
                f"{one['of_the_floor']:.0%}" if one.get("of_the_floor") else "",
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


def _without_amx() -> dict[str, str]:
    """Settings by which neither oneDNN nor numba knows AMX; before either is used."""
    features = llvm.get_host_cpu_features()
    features.update({name: False for name in features if name.startswith("amx")})
    return {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "NUMBA_CPU_NAME": llvm.get_host_cpu_name(),
        "NUMBA_CPU_FEATURES": f"{features.flatten()},-prefer-256-bit",
    }


def main() -> None:
    """Measure, print the table, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=[""], help="only rows that begin so")
    parser.add_argument("--against", nargs="+", default=[""], help="only rivals that begin so")
    parser.add_argument("--turns", type=int, default=TURNS, help="of each, unless it is slow")
    parser.add_argument("--out", help="the results' name, for another machine")
    parser.add_argument("--without-amx", action="store_true", help="on processors that have it")
    options = parser.parse_args()
    out = options.out or ("bench-without-amx" if options.without_amx else "bench")
    if options.turns < 1:
        parser.error(f"--turns: got {options.turns}, expected at least 1")
    if not RIVALS_PYTHON.exists():
        parser.error(f"there is no {RIVALS_PYTHON}: run `make .venv-rivals/installed`")
    if options.without_amx:
        if not llvm.get_host_cpu_features().get("amx-bf16"):
            parser.error("--without-amx: this processor has none; leave it out")
        os.environ.update(_without_amx())
    dtypes = [torch.float32, *([torch.bfloat16] if has_fast_bf16(CPU) else [])]
    rows = _rows([str(dtype).removeprefix("torch.") for dtype in dtypes])
    chosen = [
        replace(
            row, rivals=tuple(r for r in row.rivals if r.name.startswith(tuple(options.against)))
        )
        for row in rows
        if row.name.startswith(tuple(options.rows))
    ]
    if not chosen:
        names = ", ".join(row.name for row in rows)
        parser.error(f"--rows: none begins with {options.rows}; there are {names}")
    file = RESULTS / f"{out}.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for row in chosen:
        print(row.name, file=sys.stderr, flush=True)
        floor = measure_floor(dtypes)
        contestants = measure(row, options.turns)
        for one in contestants:
            if one["is_ours"]:
                one["of_the_floor"] = of_the_floor(row, one, floor)
        figures = {"contestants": contestants, "floor": floor}
        found[row.name] = {**figures, **provenance(CPU)}
        if options.without_amx:
            found[row.name]["hardware"] += " without AMX"
        found = {one.name: found[one.name] for one in rows if one.name in found}
        write_text(file, json.dumps(found, indent=2) + "\n")
        write_text(RESULTS / f"{out}.md", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
