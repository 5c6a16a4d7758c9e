"""Which files a folder of pictures holds, and which captions stand beside them.

What is wrong with one picture or one row becomes a `Rejection`, whose reason is the same for every
file that has it; what is wrong with a whole metadata file stops the reading.
"""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TextIO

from armchair.core.captions import MAX_CAPTION_CHARACTERS, first_invalid_character
from armchair.core.errors import DataError
from armchair.data.pictures import DECODED_SUFFIXES, OTHER_SUFFIXES

_MAX_SIDECAR_BYTES = 1 << 20
_METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
_MEND = "mend this file, or remove it from the folder"


@dataclass(frozen=True)
class Rejection:
    """Something that cannot be used.

    Attributes:
        file: Its path relative to the folder, with the line for a row of a metadata file.
        reason: Why, in words that are the same for all that share it.
        detail: What was got and what was expected.
    """

    file: str
    reason: str
    detail: str = ""

    @classmethod
    def of(cls, name: str, error: DataError) -> Rejection:
        """What was wrong with the file `name`, in characters that can be written."""
        detail = str(error).partition("\n")[0].removeprefix(error.field).removeprefix(": ")
        return cls(
            *(text.encode(errors="replace").decode() for text in (name, error.field, detail))
        )


@dataclass
class Listing:
    """Files of a folder, relative to it, in a fixed order."""

    pictures: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """Find pictures and metadata files in a folder and the folders within it.

    Names that begin with a dot are overlooked; links to folders are not followed.
    """
    listing = Listing()

    def reject(path: str | Path, reason: str) -> None:
        name = Path(path).relative_to(root).as_posix()
        listing.rejections.append(Rejection.of(name, DataError(reason)))

    def unreadable(error: OSError) -> None:
        reject(error.filename, "folder cannot be opened")

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for subfolder in subfolders:
            if (Path(folder) / subfolder).is_symlink():
                reject(Path(folder) / subfolder, "link to a folder is not followed")
        for file in sorted(file for file in files if not file.startswith(".")):
            name = (Path(folder) / file).relative_to(root).as_posix()
            if file in _METADATA_NAMES:
                listing.metadata.append(name)
            elif Path(file).suffix.lower() in DECODED_SUFFIXES | OTHER_SUFFIXES:
                listing.pictures.append(name)
    return listing


def resolve_inside(root: Path, name: str) -> Path:
    """The real path of a file that must lie in a folder.

    Raises:
        DataError: It is missing, no regular file, or a link that leads out of the folder.
    """
    try:
        path = (root / name).resolve(strict=True)
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte; a link to itself
        raise DataError("no such file") from error
    if not path.is_relative_to(root.resolve()):
        raise DataError("link leads out of the folder")
    if not is_file:
        raise DataError("not a file")
    return path


def read_metadata(root: Path, name: str) -> tuple[dict[str, list[str]], list[Rejection]]:
    """Read a metadata file.

    Args:
        root: The folder of pictures.
        name: The file, relative to it.

    Returns:
        For each picture named, relative to `root`, its captions, unchecked and possibly none; and
        the rows that name no picture of this folder.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    captions: dict[str, list[str]] = {}
    rejections: list[Rejection] = []
    for line, row in _rows(root, name):
        try:
            picture = _picture_of(row, posixpath.dirname(name))
        except DataError as error:
            rejections.append(Rejection.of(f"{name} line {line}", error))
            continue
        text = row["text"] if isinstance(row, dict) and "text" in row else None
        captions.setdefault(picture, []).extend([text] if isinstance(text, str) else [])
    return captions, rejections


def read_sidecar(root: Path, name: str) -> list[str]:
    """The lines of the `.txt` file beside a picture; none if there is no such file.

    Raises:
        DataError: The file cannot be read, or is absurdly large.
    """
    sidecar = str(PurePosixPath(name).with_suffix(".txt"))
    if not os.path.lexists(root / sidecar):
        return []
    path = resolve_inside(root, sidecar)
    try:
        size = path.stat().st_size
        if size > _MAX_SIDECAR_BYTES:
            expected = f"at most {_MAX_SIDECAR_BYTES} bytes"
            raise DataError("caption file too large", got=size, expected=expected)
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError("caption file is not UTF-8") from error
    except OSError as error:
        raise DataError("caption file cannot be opened", got=error.strerror) from error


def clean_captions(captions: list[str]) -> list[str]:
    """Strip blanks, and drop empty captions and repetitions.

    Raises:
        DataError: No caption is left, or one is too long or no valid Unicode.
    """
    cleaned = [caption.strip() for caption in dict.fromkeys(captions)]
    cleaned = list(dict.fromkeys(caption for caption in cleaned if caption))
    if not cleaned:
        raise DataError("empty caption" if captions else "no caption")
    for caption in cleaned:
        if len(caption) > MAX_CAPTION_CHARACTERS:
            expected = f"at most {MAX_CAPTION_CHARACTERS} characters"
            raise DataError("caption too long", got=len(caption), expected=expected)
        if first_invalid_character(caption) is not None:
            raise DataError("caption is no valid Unicode")
    return cleaned


def _rows(root: Path, name: str) -> Iterator[tuple[int, object]]:
    """The rows of a metadata file with their line numbers; a line that is no JSON is None."""
    where = root / name
    try:
        path = resolve_inside(root, name)
    except DataError as error:
        raise DataError(f"{where}: {error}", hint=_MEND) from error
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(where, file) if path.suffix == ".csv" else _json_rows(file)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8", hint="save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{where} cannot be read as CSV ({error})", hint=_MEND) from error
    except OSError as error:
        raise DataError(f"{where} cannot be opened ({error.strerror})", hint=_MEND) from error


def _csv_rows(where: Path, file: TextIO) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(file)
    columns = list(reader.fieldnames or [])
    if not {"file_name", "text"} <= set(columns):
        hint = "the first line names the columns, parted by commas"
        raise DataError(f"{where}: columns", got=columns, expected="file_name and text", hint=hint)
    for row in reader:
        yield reader.line_num, row


def _json_rows(file: TextIO) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _picture_of(row: object, folder: str) -> str:
    """The picture that a metadata row names, relative to the folder of pictures."""
    file_name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(file_name, str) or not file_name:
        raise DataError("metadata row without a file_name")
    name = posixpath.normpath(posixpath.join(folder, file_name))
    if name.startswith(("/", "../")) or name == "..":
        raise DataError("file_name leads out of the folder", got=file_name)
    return name
