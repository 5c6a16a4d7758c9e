"""What commands that draw share: pictures read from files, and pictures written as they come."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from armchair.cli.progress import Advance, console, progress_bar
from armchair.core.errors import DataError
from armchair.core.files import make_folder, sha256
from armchair.core.images import contact_sheet, png_text, save_png
from armchair.data.pictures import decode_picture

_GRID = 256  # pictures in grid.png at most


def open_picture(path: Path) -> Image.Image:
    """A picture file as RGB; it is said if only a part of it will be used.

    Raises:
        DataError: It cannot be read.
    """
    try:
        pixels = decode_picture(path)
    except DataError as error:
        hint = "save it as a PNG" if path.is_file() else "give the path of a picture file"
        raise DataError(f"{path}: {error}", hint=hint) from error
    if pixels.shape[0] != pixels.shape[1]:
        console.print(f"{path} is not square: the square in its centre is used")
    return Image.fromarray(pixels)


def source_of(model: str, **files: Path | None) -> dict[str, str]:
    """What a picture remembers of the model and the files that it was drawn from.

    Args:
        model: The model's name or path.
        **files: Files by what they are; None for none. Each is told by its content too, as
            another picture may have its name.
    """
    source = {"model": model}
    for name, path in files.items():
        if path is not None:
            source |= {name: path.name, f"{name}_sha256": sha256(path)}
    return source


def save_pictures(
    draw: Callable[[Advance], Iterable[Image.Image]],
    *,
    unit: str,
    folder: Path,
    name: Callable[[int], str],
    source: dict[str, str],
    columns: int | None = None,
) -> None:
    """Write pictures as PNG files as soon as each is drawn, and a contact sheet of them.

    A picture that was drawn otherwise is not replaced: the new one has a number after its name.
    Where nothing comes to be drawn, no new folder is left.

    Args:
        draw: Draws them, and is given what to tell of its progress.
        unit: What progress is counted in.
        folder: Where to.
        name: The name of each one's file, by its number.
        source: Text to put into every file.
        columns: Pictures in a row of the sheet; as many as make it square if not given.
    """
    is_new = not folder.exists()
    make_folder(folder)
    saved: list[Path] = []
    shown: list[Image.Image] = []
    try:
        with progress_bar("drawing", unit) as advance:
            for number, picture in enumerate(draw(advance)):
                path = _free(folder / name(number), png_text(picture, source))
                save_png(picture, path, source)
                saved.append(path)
                shown += [picture] if number < _GRID else []
    finally:  # after the bar, which takes standard output for itself
        for path in saved:
            print(path)
        if is_new and not saved:
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()
    if len(shown) > 1:
        wide = min(columns or max(1, round(len(shown) ** 0.5)), 16)
        save_png(contact_sheet(shown, columns=wide), folder / "grid.png", source)
        print(folder / "grid.png")
    of_them = f", the first {_GRID} in grid.png" if len(saved) > _GRID else ""
    console.print(f"{len(saved)} pictures in {folder}{of_them}")


def _free(path: Path, text: dict[str, str]) -> Path:
    """The path, or if another picture is there, the first with a number where none is."""
    found, number = path, 1
    while found.exists() and _text_of(found) != text:
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def _text_of(path: Path) -> dict[str, str] | None:
    """What a PNG file says of its picture; None if it says nothing that can be read."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of its size: no pixel is decoded
            Image.open(path, formats=["PNG"]) as picture,
        ):
            return png_text(picture, {})
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
