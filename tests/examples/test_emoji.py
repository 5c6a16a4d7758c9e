import runpy
from pathlib import Path

import numpy as np
import pytest

from armchair.core.errors import DataError, UsageError
from armchair.data.folder import FolderConfig, FolderPictures

EXAMPLE = Path(__file__).parents[2] / "examples" / "emoji.py"
emoji = runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RED APPLE", "a red apple"),
        ("AVOCADO", "an avocado"),
        ("UNICORN FACE", "a unicorn face"),
        ("HOURGLASS", "an hourglass"),
        ("BLACK SUN WITH RAYS", "a sun with rays"),
        ("HEAVY BLACK HEART", "a heart"),
        ("BLACK HEART", "a black heart"),
        ("WHITE LARGE SQUARE", "a white large square"),
        ("GRINNING FACE WITH SMILING EYES", "a grinning face with smiling eyes"),
        ("CHERRIES", "cherries"),
        ("OCTOPUS", "an octopus"),
        ("EMOJI COMPONENT RED HAIR", "a red hair"),
    ],
)
def test_caption_of_a_unicode_name(name: str, expected: str) -> None:
    assert emoji["caption"](name) == expected


def test_missing_font_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no font at .*\nhint: apt-get install fonts-noto"):
        emoji["main"](tmp_path, tmp_path / "none.ttf")


def test_file_that_is_no_font_is_explained(tmp_path: Path) -> None:
    (tmp_path / "text.ttf").write_text("no font")
    with pytest.raises(DataError, match="has no bitmaps of size 109"):
        emoji["main"](tmp_path, tmp_path / "text.ttf")


@pytest.mark.skipif(not emoji["NOTO"].exists(), reason="needs fonts-noto-color-emoji")
def test_drawings_make_a_folder_to_train_on(tmp_path: Path) -> None:
    globals_of_main = emoji["main"].__globals__
    globals_of_main["CHARACTERS"] = range(0x1F347, 0x1F351)  # fruit
    emoji["main"](tmp_path)
    pictures = FolderPictures.scan(FolderConfig(path=tmp_path, min_size=128))
    assert len(pictures) == 10
    assert pictures.captions(7) == ["a red apple"]
    apple = pictures.pixels(7)
    assert apple.shape == (136, 136, 3)
    assert apple[0, 0].tolist() == [255, 255, 255]
    red, green, _ = np.median(apple[60:80, 60:80], axis=(0, 1))
    assert red > 150 > green
