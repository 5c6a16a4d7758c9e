import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from armchair.core.errors import UsageError
from armchair.training.plots import plot_metrics


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_panel_for_each_number(tmp_path: Path) -> None:
    rows = [
        {"kind": "train", "images_seen": seen, "loss": 1 / seen, "restarted": None}
        for seen in (10, 20, 30)
    ]
    validation = {"kind": "validation", "images_seen": 30, "loss": 0.1, "psnr_db": 20.0}
    metrics = write(tmp_path / "metrics.jsonl", *rows, validation)
    picture = tmp_path / "new" / "curves.png"
    plot_metrics(metrics, picture, title="A run")
    with Image.open(picture) as drawn:
        width, height = drawn.size
        assert drawn.format == "PNG"
        assert 2 < width / height < 6  # three panels in one row
        assert len(drawn.convert("RGB").getcolors(2**24) or []) > 50


def test_four_numbers_take_two_rows(tmp_path: Path) -> None:
    row = {"kind": "train", "images_seen": 1, "a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}
    plot_metrics(write(tmp_path / "m.jsonl", row), tmp_path / "curves.png", title="A run")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert 1.5 < drawn.width / drawn.height < 3


def test_no_numbers_are_refused(tmp_path: Path) -> None:
    for metrics in (tmp_path / "nowhere.jsonl", write(tmp_path / "empty.jsonl")):
        with pytest.raises(UsageError, match="holds no numbers yet"):
            plot_metrics(metrics, tmp_path / "curves.png", title="A run")
    assert not (tmp_path / "curves.png").exists()


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'armchair\[plots\]'"):
        plot_metrics(tmp_path / "m.jsonl", tmp_path / "curves.png", title="A run")
