from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from armchair.core.errors import OutputError
from armchair.core.images import (
    contact_sheet,
    from_unit,
    save_png,
    to_pil,
    to_pixels,
    to_tensor,
    to_unit,
)

EVERY_VALUE = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)


def test_every_value_survives_the_round_trip() -> None:
    assert set(EVERY_VALUE.ravel()) == set(range(256))
    images = to_tensor(EVERY_VALUE)
    assert images.dtype == torch.float32
    assert images.shape == (3, 16, 16)
    assert np.array_equal(to_pixels(images), EVERY_VALUE)


def test_the_range_is_minus_one_to_one() -> None:
    ends = to_tensor(np.array([[[0, 255, 0]]], np.uint8))
    assert ends.flatten().tolist() == [-1, 1, -1]


def test_batches_keep_their_axes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    images = to_tensor(pixels)
    assert images.shape == (2, 3, 5, 4)
    assert images.is_contiguous()
    assert torch.equal(images[1], to_tensor(pixels[1]))
    assert np.array_equal(to_pixels(images), pixels)


def test_read_only_pixels_are_copied() -> None:
    pixels = np.full((1, 1, 3), 7, np.uint8)
    pixels.flags.writeable = False
    to_tensor(pixels).zero_()
    assert pixels.max() == 7


def test_values_outside_are_clamped_and_others_rounded() -> None:
    images = torch.tensor([-2.0, 2.0, 0.0]).reshape(3, 1, 1)
    assert to_pixels(images).flatten().tolist() == [0, 255, 128]
    step = 2 / 255
    nearly = torch.tensor([-1 + 0.49 * step, -1 + 0.51 * step, 1 - 0.49 * step]).reshape(3, 1, 1)
    assert to_pixels(nearly).flatten().tolist() == [0, 1, 255]


def test_pictures_with_gradients_can_be_shown() -> None:
    assert to_pixels(torch.zeros(3, 2, 2, requires_grad=True)).shape == (2, 2, 3)


def test_unit_range_and_back() -> None:
    images = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    assert to_unit(images).tolist() == [0, 0.5, 0.75, 1]
    assert torch.allclose(from_unit(to_unit(images)), images, atol=1e-7)


def test_contact_sheet_lays_pictures_out_in_rows() -> None:
    reds = [Image.new("RGB", (4, 3), (100 + n, 0, 0)) for n in range(5)]
    sheet = contact_sheet(reds, columns=3, margin=2, scale=2)
    assert sheet.size == (3 * (8 + 2) + 2, 2 * (6 + 2) + 2)
    assert sheet.getpixel((0, 0)) == (255, 255, 255)
    assert sheet.getpixel((2, 2)) == (100, 0, 0)
    assert sheet.getpixel((2 + 10, 2 + 8)) == (104, 0, 0)
    assert sheet.getpixel((2 + 20, 2 + 8)) == (255, 255, 255)


def test_contact_sheet_of_few_is_no_wider_than_they_are() -> None:
    assert contact_sheet([Image.new("RGB", (4, 4))], columns=8, margin=0).size == (4, 4)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], columns=2)


def test_to_pil_gives_each_picture() -> None:
    pictures = to_pil(to_tensor(np.stack([EVERY_VALUE, 255 - EVERY_VALUE])))
    assert [picture.size for picture in pictures] == [(16, 16)] * 2
    assert np.array_equal(np.asarray(pictures[1]), 255 - EVERY_VALUE)


def test_png_keeps_its_text(tmp_path: Path) -> None:
    picture = Image.fromarray(EVERY_VALUE)
    picture.info.update({"prompt": "old", "seed": "1", "dpi": (72, 72)})
    text = {"prompt": "eine Süßkartoffel — 椅子", "note": "two\nlines"}
    save_png(picture, tmp_path / "new" / "a.png", text)
    with Image.open(tmp_path / "new" / "a.png") as again:
        assert np.array_equal(np.asarray(again), EVERY_VALUE)
        assert again.info["prompt"] == text["prompt"]
        assert again.info["note"] == text["note"]
        assert again.info["seed"] == "1"


def test_png_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_png(Image.fromarray(EVERY_VALUE), tmp_path / "file" / "a.png", {})
