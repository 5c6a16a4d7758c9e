"""A run that is killed again and again ends where an unbroken one does, byte for byte."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from armchair.training.checkpoint import list_checkpoints

SCRIPT = Path(__file__).with_name("killed_run.py")
PATIENCE = 300.0  # seconds


class Runner:
    """The process that forks runs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, kind: str, folder: Path) -> int:
        """The id of a process that trains in `folder`."""
        assert self.process.stdin is not None
        print(kind, folder, file=self.process.stdin, flush=True)
        return int(self._line())

    def status(self) -> int:
        """How it ended."""
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def runner() -> Iterator[Runner]:
    built = Runner()
    with built.process:
        yield built


def rows(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def kill_after(folder: Path, process: int, count: int, delay: float) -> None:
    """Kill a process a moment after the file of metrics has grown by `count` lines."""
    wanted, deadline = len(rows(folder)) + count, time.monotonic() + PATIENCE
    while len(rows(folder)) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)


def test_a_killed_run_ends_where_an_unbroken_one_does(tmp_path: Path, runner: Runner) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    runner.start("loop", unbroken)
    assert runner.status() == 0
    moments = []
    for _ in range(3):
        moments.append((random.randint(1, 8), random.uniform(0, 0.03)))
        kill_after(broken, runner.start("loop", broken), *moments[-1])
        assert runner.status() == signal.SIGKILL, moments
    runner.start("loop", broken)
    assert runner.status() == 0, moments

    names = [
        [path.name for path in list_checkpoints(run / "checkpoints")] for run in (unbroken, broken)
    ]
    assert names[0] == names[1], moments
    for name in names[0]:
        one, other = (
            (run / "checkpoints" / name / "state.safetensors").read_bytes()
            for run in (unbroken, broken)
        )
        assert one == other, moments
    assert sorted(path.name for path in (broken / "checkpoints").iterdir()) == names[0], moments

    logged = [
        [(row["kind"], row["images_seen"]) for row in map(json.loads, rows(run))]
        for run in (unbroken, broken)
    ]
    assert logged[1] == logged[0], moments
    assert len(set(logged[1])) == len(logged[1])
    pictures = [sorted(path.name for path in run.glob("*.png")) for run in (unbroken, broken)]
    assert pictures[0] == pictures[1], moments


def test_a_run_that_is_killed_in_each_stage_ends_where_an_unbroken_one_does(
    tmp_path: Path, runner: Runner
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    runner.start("run", unbroken)
    assert runner.status() == 0
    moments = {}
    for name in (
        "recipe.json",
        "tokenizer.json",
        "autoencoder/checkpoints",
        "codes/00001.npy",
        "transformer/checkpoints",
        "bundle",
    ):
        process, deadline = runner.start("run", broken), time.monotonic() + PATIENCE
        while not (broken / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        moments[name] = random.uniform(0, 0.03)
        time.sleep(moments[name])
        with contextlib.suppress(ProcessLookupError):  # it may have come to its end
            os.kill(process, signal.SIGKILL)
        runner.status()
    runner.start("run", broken)
    assert runner.status() == 0, moments

    files = [
        {
            str(path.relative_to(run)): path.read_bytes()
            for path in run.rglob("*")
            if path.suffix in (".safetensors", ".npy", ".jsonl") or path.name == "tokenizer.json"
        }
        for run in (unbroken, broken)
    ]
    assert files[0].keys() == files[1].keys(), moments
    assert all(files[1][name] == content for name, content in files[0].items()), moments
