"""`armchair scenes`: write pictures and captions of the default data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from armchair.cli.options import read_options
from armchair.core.errors import UsageError

_MAX_COUNT = 1_000_000
_MIN_SIZE, _MAX_SIZE = 32, 1024  # pixels
_SHEET = 64  # pictures on the contact sheet at most


@dataclass(kw_only=True)
class ScenesOptions:
    """Write scenes as PNG files with captions, and a contact sheet.

    The folder can be trained on: --data folder:OUT.
    """

    out: Path = field(default_factory=lambda: Path("out/scenes"))
    """Folder to write to."""
    count: int = 64
    """How many pictures."""
    size: int = 128
    """Pixels along a side, 32 to 1,024."""
    seed: int = 0
    """Which world."""
    split: Literal["train", "validation", "held_out"] = "train"
    """Which of its streams."""


def run(words: Sequence[str]) -> None:
    """Write the scenes."""
    options = read_options(ScenesOptions, words, verb="scenes")
    _check(options)

    import json

    from PIL import Image

    from armchair.cli.progress import progress_bar
    from armchair.core.files import make_folder, write_text
    from armchair.core.images import contact_sheet, save_png
    from armchair.data.scenes import Scenes, ScenesConfig

    config = ScenesConfig(
        num_pictures=options.count, size=options.size, seed=options.seed, split=options.split
    )
    folder = make_folder(options.out.resolve())
    sheet = make_folder(folder.parent) / f"{folder.name}-sheet.png"  # not among the pictures
    scenes, rows, shown = Scenes(config), [], []
    with progress_bar("scenes", "pictures") as advance:
        for index in range(options.count):
            picture, name = Image.fromarray(scenes.pixels(index)), f"{index:06d}.png"
            save_png(picture, folder / name, {})
            captions = scenes.captions(index)
            rows += [json.dumps({"file_name": name, "text": caption}) for caption in captions]
            shown += [picture] if index < _SHEET else []
            advance(index + 1, options.count)
    write_text(folder / "metadata.jsonl", "\n".join(rows) + "\n")
    save_png(contact_sheet(shown, columns=8), sheet, {})
    print(folder)
    print(sheet)


def _check(options: ScenesOptions) -> None:
    for name, lowest, highest in (("count", 1, _MAX_COUNT), ("size", _MIN_SIZE, _MAX_SIZE)):
        value = getattr(options, name)
        if not lowest <= value <= highest:
            expected = f"{lowest} to {highest:,}"
            raise UsageError(name, got=value, expected=expected, hint=f"try --{name} 64")
    for picture in options.out.glob("[0-9]" * 6 + ".png"):
        if int(picture.stem) >= options.count:
            raise UsageError(
                f"{options.out} holds scenes of an earlier, larger --count: {picture.name}",
                hint="choose another --out, or remove that folder first",
            )
