from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import bench
import pytest
import torch
from bench import Contestant, Process, Row
from contestants import serving
from contestants.shapes import SHAPES
from floor import drawing_seconds, measure_floor, training_seconds
from llvmlite import binding as llvm

from armchair.nn.masks import AttentionPattern, dense_mask

WEIGHTS = 12 * 8 * 256**2 + 256 * 1024  # of shape A
FLOOR = {"float32": 1e9, "bfloat16": 1e10, "memory": 1e8, "cache": 1e9}


def test_a_token_costs_its_weights_or_its_products() -> None:
    read, multiplied = 4 * WEIGHTS / 1e8, 2 * WEIGHTS / 1e10
    assert drawing_seconds(SHAPES["A"], 1, FLOOR, torch.float32) == pytest.approx(read)
    found = drawing_seconds(SHAPES["A"], 1000, FLOOR, torch.float32)
    assert found == pytest.approx(1000 * multiplied)
    found = drawing_seconds(SHAPES["A"], 1, FLOOR, torch.bfloat16)
    assert found == pytest.approx(read / 2)


def test_an_update_costs_three_passes_of_products() -> None:
    layers, heads = 12 * 8 * 256**2 * 320, 256 * (1024 * 256 + 4096 * 64)
    of_text = 64 * 65 // 2 + 256 * 64  # seen in each layer, by the text and by the image
    row, column = 256 * 17 - 16 * 17 // 2, 16 * (16 * 17 // 2)
    last = AttentionPattern(kind="convolution", text_length=64, grid_size=16, conv_kernel=11)
    seen = 7 * of_text + 5 * row + 2 * column + int(dense_mask(last).sum())
    found = training_seconds(SHAPES["A"], 8, FLOOR, torch.float32)
    assert found == pytest.approx(6 * 8 * (layers + heads + 2 * 256 * seen) / 1e9)


def test_the_floor_is_measured() -> None:
    found = measure_floor([torch.float32])
    assert set(found) == {"float32", "memory", "cache"}
    assert min(found.values()) > 1e7


def test_what_is_served_is_timed_and_other_output_kept_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*given: object) -> tuple[serving.Run, dict[str, object]]:
        assert given == ("train", "A", 8, "full")
        print("a library's greeting")
        return lambda: 7, {"precision": "float32"}

    monkeypatch.setattr(sys, "argv", ["x.py", "train", "A", "8", "full"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("0\n0\n0.02\n"))
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back afterwards
    serving.serve(build)
    output, errors = capsys.readouterr()
    about, *answers = map(json.loads, output.splitlines())
    assert about == {"precision": "float32"}
    assert [answer["units"] for answer in answers[:2]] == [7, 7]
    assert answers[2]["units"] > 7  # as often as fills the seconds
    assert answers[2]["units"] % 7 == 0
    assert all(answer["seconds"] >= 0 and answer["peak_bytes"] > 2**20 for answer in answers)
    assert answers[2]["seconds"] >= 0.02
    assert errors == "a library's greeting\n"


def script(tmp_path: Path, text: str) -> Contestant:
    path = tmp_path / "contestant.py"
    folder = str(bench.CONTESTANTS)
    path.write_text(f"import sys; sys.path.insert(0, {folder!r})\n{text}\n", "utf-8")
    return Contestant("a rival", str(path), "full", 3)


def test_contestants_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from serving import serve; serve(lambda *given: (lambda: 5, {'precision': given[3]}))"
    rival = script(tmp_path, text)
    monkeypatch.setattr(bench, "RIVALS_PYTHON", sys.executable)
    monkeypatch.setattr(bench, "TURN_SECONDS", 0)
    variants = [Contestant(f"armchair, {one}", rival.script, one) for one in ("float32", "int8")]
    row = Row("training A", "train", "A", 8, tuple(variants), (rival,))
    ours, fewer_bits, theirs = bench.measure(row)
    assert [one["contestant"] for one in (ours, theirs)] == ["armchair, float32", "a rival"]
    assert [one["is_ours"] for one in (ours, fewer_bits, theirs)] == [True, True, False]
    assert ours["turns"] == theirs["turns"] == bench.TURNS
    assert ours["times_as_fast"] == 1
    assert theirs["lowest"] <= theirs["units_per_second"] <= theirs["highest"]
    about = {"commit": "abc", "date": "2026-11-26", "hardware": "a machine"}
    ours["of_the_floor"] = 0.25
    row_of = {"contestants": [ours, theirs], "floor": FLOOR, **about}
    page = bench.table({row.name: row_of})
    assert "| training A | armchair, float32 |" in page
    assert "| 3x |" in page
    assert "| 25% |" in page
    assert "| training A | abc | 2026-11-26 | a machine | float32 1 GFLOP/s" in page


def test_a_contestant_that_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RIVALS_PYTHON", sys.executable)
    rival = script(tmp_path, "raise ValueError('it does not build')")
    with pytest.raises(RuntimeError, match="it does not build"):
        Process(rival, Row("training A", "train", "A", 8, (), ()))


def test_all_rows_are_there() -> None:
    names = [row.name for row in bench._rows(["float32", "bfloat16"])]
    assert names == [
        "sampling A, batch 1",
        "sampling A, batch 8",
        "sampling A, batch 32",
        "sampling B, batch 1",
        "sampling B, batch 8",
        "training A",
        "training B",
        "training B, float32",
        "training a discrete VAE",
    ]


def test_without_amx_everything_else_stays() -> None:
    found = llvm.get_host_cpu_features()
    settings = bench._without_amx()
    features = settings["NUMBA_CPU_FEATURES"].split(",")
    assert not any(feature.startswith("+amx") for feature in features)
    assert {f"+{name}" for name, has in found.items() if has and "amx" not in name} <= {*features}
