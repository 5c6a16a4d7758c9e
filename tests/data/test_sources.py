from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from armchair.core.errors import ConfigError, DataError, UsageError
from armchair.data.sources import DataConfig, at_size, open_data
from armchair.data.transforms import center_crop


def test_scenes() -> None:
    config = DataConfig(num_pictures=5, num_validation=3, seed=1)
    train, validation = open_data(config, image_size=32)
    assert (len(train), len(validation)) == (5, 3)
    assert train.pixels(0).shape == (32, 32, 3)
    assert train.captions(0) != validation.captions(0)
    other = open_data(DataConfig(num_pictures=5, seed=2), image_size=32)[0]
    assert not np.array_equal(train.pixels(0), other.pixels(0))


def test_a_folder_sets_some_of_its_pictures_aside(tmp_path: Path) -> None:
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"picture {number}")
    (tmp_path / "untold.png").write_bytes((tmp_path / "0.png").read_bytes())
    told: list[tuple[int, int]] = []
    messages: list[str] = []
    train, validation = open_data(
        DataConfig(source=f"folder:{tmp_path}"),
        image_size=16,
        rejected=tmp_path / "rejected.jsonl",
        message=messages.append,
        on_progress=lambda done, total: told.append((done, total)),
    )
    captions = [
        pictures.captions(index)[0]
        for pictures in (train, validation)
        for index in range(len(pictures))
    ]
    assert sorted(captions) == [f"picture {number}" for number in range(8)]
    assert len(validation) >= 1
    assert told[-1] == (9, 9)
    (message,) = messages
    assert "1 of 9 pictures cannot be used: no caption (1)" in message
    assert str(tmp_path / "rejected.jsonl") in message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((DataError, UsageError), match="nowhere"):
        open_data(DataConfig(source=f"folder:{tmp_path / 'nowhere'}"), image_size=16)


@pytest.mark.parametrize("source", ["", "scene", "scenes:there", "folder", "folder:", "coco:there"])
def test_unknown_sources_are_refused(source: str) -> None:
    with pytest.raises(UsageError, match='expected "scenes" or "folder:PATH"'):
        open_data(DataConfig(source=source), image_size=32)


@pytest.mark.parametrize("name", ["num_pictures", "num_validation", "views"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: got 0"):
        DataConfig(**{name: 0})


def test_scenes_are_drawn_at_the_size_of_their_use(tmp_path: Path) -> None:
    train, _ = open_data(DataConfig(num_pictures=5, seed=1), image_size=128)
    small = at_size(train, 48)
    assert len(small) == 5
    assert small.captions(3) == train.captions(3)
    assert small.pixels(3).shape == (48, 48, 3)
    difference = center_crop(train.pixels(3), 48).astype(int) - small.pixels(3)
    assert np.abs(difference).mean() < 4  # the same scene
    assert at_size(train, 16).pixels(0).shape == (32, 32, 3)  # as small as it is drawn
    Image.new("RGB", (40, 40)).save(tmp_path / "red.png")
    (tmp_path / "red.txt").write_text("red")
    folder, _ = open_data(DataConfig(source=f"folder:{tmp_path}"), image_size=32)
    assert at_size(folder, 16) is folder


def test_scenes_for_tiny_pictures_are_drawn_larger() -> None:
    train, _ = open_data(DataConfig(num_pictures=5), image_size=16)
    assert train.pixels(0).shape == (32, 32, 3)
