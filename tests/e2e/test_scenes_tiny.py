"""The whole path on a scaled-down scenes-tiny: train, stop, go on, plot, draw."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from armchair.cli.main import main
from armchair.pipelines.bundle import open_bundle

SMALLER = [
    "--data.num-pictures", "200", "--data.num-validation", "16",
    "--autoencoder-training.num-images", "640",
    "--autoencoder-training.validate-every", "320",
    "--transformer-training.num-images", "640",
    "--device", "cpu",
]  # fmt: skip


def test_from_captions_to_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = ["train", "scenes-tiny", "--out", str(run), *SMALLER]
    assert main(command) == 0
    assert Path(capsys.readouterr().out.strip()) == run / "bundle"
    for stage in ("autoencoder", "transformer"):
        rows = [json.loads(r) for r in (run / stage / "metrics.jsonl").read_text().splitlines()]
        assert {row["kind"] for row in rows} == {"train", "validation"}
        assert list((run / stage / "previews").glob("*.png"))
    assert main(["plot", str(run)]) == 0
    assert (run / "transformer" / "curves.png").exists()

    out = tmp_path / "pictures"
    draw = ["generate", "a kiwi mug", "--model", str(run / "bundle"), "--out", str(out)]
    assert main([*draw, "--count", "2", "--device", "cpu"]) == 0
    with Image.open(out / "a-kiwi-mug-s0-00.png") as picture:
        assert picture.size == (32, 32)
        first = np.asarray(picture).copy()

    about = open_bundle(run / "bundle").manifest["about"]
    assert about["command"] == f"armchair {shlex.join(command)}"
    assert about["pictures"] == 200

    before = {path.name: path.read_bytes() for path in (run / "bundle").iterdir()}
    assert main(command) == 0  # everything is done: nothing changes
    assert {path.name: path.read_bytes() for path in (run / "bundle").iterdir()} == before
    assert main([*draw, "--device", "cpu"]) == 0
    with Image.open(out / "a-kiwi-mug-s0-00.png") as picture:
        assert np.array_equal(np.asarray(picture), first)

    capsys.readouterr()
    assert main([*command, "--transformer.dim", "48"]) == 1
    assert "transformer.dim" in capsys.readouterr().err
