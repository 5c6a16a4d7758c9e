import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toys
from PIL import Image

from armchair.core.errors import OutputError, UsageError
from armchair.training.observers import (
    MetricsFile,
    Observer,
    Observers,
    PreviewFolder,
    TensorBoard,
    WeightsAndBiases,
    read_metrics,
)


def test_metrics_are_a_json_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.start(0, 100)
    metrics.metrics("train", 10, {"loss": 0.5})
    metrics.metrics("validation", 10, {"psnr_db": 20.0, "bits": math.inf})
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == read_metrics(path)
    assert read_metrics(path) == [
        {"kind": "train", "images_seen": 10, "loss": 0.5},
        {"kind": "validation", "images_seen": 10, "psnr_db": 20.0, "bits": None},
    ]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.start(0, 100)
    for seen in (10, 20, 30):
        metrics.metrics("train", seen, {"loss": 1.0})
    MetricsFile(path).start(20, 100)
    assert [row["images_seen"] for row in read_metrics(path)] == [10, 20]
    MetricsFile(path).start(0, 100)
    assert read_metrics(path) == []


@pytest.mark.parametrize("end", ['{"kind": "train", "images_seen": 2', '{"kind": "tr\n', "\x00"])
def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path, end: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "images_seen": 10, "loss": 1.0}\n' + end)
    assert [row["images_seen"] for row in read_metrics(path)] == [10]
    metrics = MetricsFile(path)
    metrics.start(10, 100)
    metrics.metrics("train", 20, {"loss": 1.0})
    assert [row["images_seen"] for row in read_metrics(path)] == [10, 20]


def test_metrics_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.jsonl"):
        MetricsFile(tmp_path / "metrics.jsonl").metrics("train", 1, {})


def test_previews_are_named_by_the_pictures_seen(tmp_path: Path) -> None:
    folder = tmp_path / "previews"
    for colour in ("red", "blue"):
        PreviewFolder(folder).preview(12_800, Image.new("RGB", (2, 2), colour))
    assert [path.name for path in folder.iterdir()] == ["000012800.png"]
    with Image.open(folder / "000012800.png") as picture:
        assert picture.getpixel((0, 0)) == (0, 0, 255)


def tell_everything(observer: Observer) -> None:
    observer.start(0, 10)
    observer.advance(5)
    observer.metrics("train", 5, {"loss": 1.0})
    observer.preview(5, Image.new("RGB", (2, 2)))
    observer.message("note")
    observer.stop()


def test_several_observers_are_told_alike() -> None:
    first, second = toys.Recorder(), toys.Recorder()
    tell_everything(Observers([first, Observer(), second]))
    for recorder in (first, second):
        assert recorder.starts == [(0, 10)]
        assert recorder.advanced == [5]
        assert recorder.rows == [("train", 5, {"loss": 1.0})]
        assert recorder.previews == [5]
        assert recorder.messages == ["note"]
        assert recorder.stops == 1


def test_tensorboard_is_told_scalars_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str, *, purge_step: int) -> None:
            told.append(("folder", folder, purge_step))

        def add_scalar(self, *values: Any) -> None:
            told.append(values)

        def add_image(self, name: str, pixels: Any, seen: int, *, dataformats: str) -> None:
            told.append((name, pixels.shape, seen, dataformats))

        def close(self) -> None:
            told.append(("closed",))

    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    observer = TensorBoard(tmp_path)
    assert told == []  # nothing is opened before the run starts
    tell_everything(observer)
    assert told == [
        ("folder", str(tmp_path), 1),
        ("train/loss", 1.0, 5),
        ("preview", (2, 2, 3), 5, "HWC"),
        ("closed",),
    ]
    told.clear()
    TensorBoard(tmp_path).start(20, 100)
    assert told == [("folder", str(tmp_path), 21)]  # hides what came after picture 20


def test_wandb_is_told_scalars_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    run = SimpleNamespace(log=told.append, finish=lambda: told.append("finished"))
    module = SimpleNamespace(init=lambda **options: told.append(options) or run, Image=type)
    monkeypatch.setitem(sys.modules, "wandb", module)
    observer = WeightsAndBiases(tmp_path, {"width": 8})
    assert told == []  # nothing is opened before the run starts
    tell_everything(observer)
    assert told[0]["config"] == {"width": 8}
    assert told[1:] == [
        {"train/loss": 1.0, "images_seen": 5},
        {"preview": Image.Image, "images_seen": 5},
        "finished",
    ]
    WeightsAndBiases(tmp_path, {"width": 8}).start(5, 10)
    assert told[-1] == told[0]  # the same run, by its id
    assert told[0]["resume"] == "allow"
    WeightsAndBiases(tmp_path / "other", {}).start(0, 10)
    assert told[-1]["id"] != told[0]["id"]


@pytest.mark.parametrize(
    ("module", "build"),
    [
        ("torch.utils.tensorboard", TensorBoard),
        ("wandb", lambda folder: WeightsAndBiases(folder, {})),
    ],
)
def test_what_is_not_installed_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, build: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=r"pip install 'armchair\["):
        build(tmp_path)
