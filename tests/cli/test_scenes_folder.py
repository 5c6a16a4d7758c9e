"""Where `armchair scenes` writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from armchair.cli.main import main


def scenes(out: object, count: int, size: int = 32) -> int:
    return main(["scenes", "--out", str(out), "--count", str(count), "--size", str(size)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_may_be_where_one_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert scenes(".", 2) == 0
    assert names(tmp_path / "sub") == ["000000.png", "000001.png", "metadata.jsonl"]
    assert names(tmp_path) == ["sub", "sub-sheet.png"]


def test_pictures_of_a_larger_count_are_in_the_way(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "scenes"
    assert scenes(out, 3) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert scenes(out, 2) == 2
    assert "hint:" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert scenes(out, 4) == 0
    assert len(names(out)) == 5
    assert all(path.read_bytes() == data for path, data in before.items() if path.suffix == ".png")


@pytest.mark.parametrize("size", [-1, 31, 1025, 99_999])
def test_sizes_are_bounded(capsys: pytest.CaptureFixture[str], tmp_path: Path, size: int) -> None:
    assert scenes(tmp_path / "out", 1, size) == 2
    error = capsys.readouterr().err
    assert f"size: got {size}, expected 32 to 1,024" in error
    assert "hint:" in error
    assert not (tmp_path / "out").exists()
