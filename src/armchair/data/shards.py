"""What a model makes of pictures, on disk: each picture is encoded once, and later stages read it.

    folder/00000.npy       an array for the first pictures
    folder/00000.jsonl     a JSON list of captions for each of them
    folder/about.json      what the arrays are made of; written first
    folder/manifest.json   counts, sizes, checksums; written last, so its presence means whole

Writing goes shard by shard; an interrupted writer goes on after the last whole shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from armchair.core.errors import DataError
from armchair.core.files import atomic_path, make_folder, sha256, write_json, write_text

SHARD_SIZE = 2048
_FORMAT = 1
_NOTE = "about.json"

Encoded = tuple[Shaped[np.ndarray, "N *S"], list[list[str]]]
"""An array, and the captions of each picture that it is of."""


def write_shards(
    folder: Path,
    num_pictures: int,
    encode: Callable[[range], Encoded],
    *,
    about: dict[str, Any],
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Encode pictures in shards; does nothing where they are already written.

    Args:
        folder: Where to write.
        num_pictures: How many pictures there are.
        encode: Gives the array and the captions of a range of pictures.
        about: JSON data that says what the arrays are made of; shards made of something else are
            refused. Fields that an older folder does not name are not compared.
        advance: Told how many pictures are done.

    Raises:
        DataError: The folder holds shards made of something else.
        OutputError: The disk is full or read-only.
    """
    make_folder(folder)
    _claim(folder, {**about, "pictures": num_pictures})
    if (folder / "manifest.json").exists():
        advance(num_pictures)
        return
    shards = [
        range(start, min(start + SHARD_SIZE, num_pictures))
        for start in range(0, num_pictures, SHARD_SIZE)
    ]
    for number, indices in enumerate(shards):
        name = f"{number:05d}"
        if not (folder / f"{name}.jsonl").exists():  # the captions are written second
            array, captions = encode(indices)
            with atomic_path(folder / f"{name}.npy") as path, path.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            lines = (json.dumps(wordings, ensure_ascii=False) + "\n" for wordings in captions)
            write_text(folder / f"{name}.jsonl", "".join(lines))
        advance(indices.stop)
    write_json(folder / "manifest.json", _manifest(folder, len(shards), num_pictures))


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Record what the shards are made of, or check that the folder's are made of the same."""
    note = folder / _NOTE
    if not note.exists():
        write_json(note, about)
        return
    try:
        held = json.loads(note.read_text("utf-8"))
        same = {**about, **held} == about
    except (TypeError, ValueError):
        same = False
    if not same:
        raise DataError(
            f"{folder} was made by another model or of another data set",
            hint="remove this folder to encode anew",
        )


def _manifest(folder: Path, num_shards: int, num_pictures: int) -> dict[str, Any]:
    names = [f"{n:05d}.{kind}" for n in range(num_shards) for kind in ("npy", "jsonl")]
    return {
        "format": _FORMAT,
        "pictures": num_pictures,
        "sha256": {name: sha256(folder / name) for name in names},
    }


class Shards:
    """What `write_shards` wrote, its arrays memory-mapped.

    Args:
        folder: Where it is.

    Attributes:
        about: What the arrays are made of, as `write_shards` was told.
        arrays: That of each shard.
        captions: For each shard, those of each of its pictures.

    Raises:
        DataError: It is incomplete or altered.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            if manifest["format"] != _FORMAT:
                got, expected = manifest["format"], f"format {_FORMAT}"
                hint = "a newer armchair wrote it: upgrade, or remove it to encode anew"
                raise DataError(str(folder), got=got, expected=expected, hint=hint)
            self.about: dict[str, Any] = json.loads((folder / _NOTE).read_text("utf-8"))
            checksums = manifest["sha256"]
            for name, expected in checksums.items():
                if sha256(folder / name) != expected:
                    raise DataError(
                        f"{folder / name} was altered after it was written",
                        hint=f"remove {folder} to encode anew",
                    )
            names = sorted(name for name in checksums if name.endswith(".npy"))
            self.arrays: list[np.ndarray] = [np.load(folder / n, mmap_mode="r") for n in names]
            self.captions = [_read_captions((folder / n).with_suffix(".jsonl")) for n in names]
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "remove it to encode anew"
            raise DataError(f"{folder} cannot be read ({error})", hint=hint) from error

    def __len__(self) -> int:
        return sum(map(len, self.captions))


def _read_captions(path: Path) -> list[list[str]]:
    """A list of captions from each line; only a line feed ends one, as captions hold the others."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
