"""Image codes on disk: each picture is encoded once, and the transformer reads codes.

    codes/00000.npy       uint16 or int32, (pictures, h, w)
    codes/00000.jsonl     a JSON list of captions for each picture
    codes/about.json      what the codes are made of; written first
    codes/manifest.json   counts, sizes, checksums; written last, so its presence means whole

Writing goes shard by shard; an interrupted writer goes on after the last whole shard.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from armchair.core.errors import DataError
from armchair.core.files import atomic_path, make_folder, sha256, write_json, write_text

SHARD_SIZE = 2048
_FORMAT = 1
_NOTE = "about.json"

Encoded = tuple[Integer[np.ndarray, "N h w"], list[list[str]]]


def write_codes(
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
        encode: Gives the codes and captions of a range of pictures.
        about: JSON data that says what the codes were made of; shards made of something else are
            refused. Fields that an older folder does not name are not compared.
        advance: Told how many pictures are done.

    Raises:
        DataError: The folder holds codes made of something else.
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
            codes, captions = encode(indices)
            kind = np.uint16 if codes.max(initial=0) < 2**16 else np.int32
            with atomic_path(folder / f"{name}.npy") as path, path.open("wb") as file:
                np.save(file, codes.astype(kind), allow_pickle=False)
            lines = (json.dumps(wordings, ensure_ascii=False) + "\n" for wordings in captions)
            write_text(folder / f"{name}.jsonl", "".join(lines))
        advance(indices.stop)
    write_json(folder / "manifest.json", _manifest(folder, len(shards), num_pictures))


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Record what the codes are made of, or check that the folder's are made of the same."""
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
            f"{folder} holds codes of another autoencoder or data set",
            hint="remove this folder to encode anew",
        )


def _manifest(folder: Path, num_shards: int, num_pictures: int) -> dict[str, Any]:
    names = [f"{n:05d}.{kind}" for n in range(num_shards) for kind in ("npy", "jsonl")]
    return {
        "format": _FORMAT,
        "pictures": num_pictures,
        "sha256": {name: sha256(folder / name) for name in names},
    }


class CodeStore:
    """The codes and captions that `write_codes` wrote, memory-mapped.

    Args:
        folder: Where they are.

    Attributes:
        about: What they are made of, as `write_codes` was told.

    Raises:
        DataError: They are incomplete or altered.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            if manifest["format"] != _FORMAT:
                raise DataError(str(folder), got=manifest["format"], expected=f"format {_FORMAT}")
            self.about: dict[str, Any] = json.loads((folder / _NOTE).read_text("utf-8"))
            checksums = manifest["sha256"]
            for name, expected in checksums.items():
                if sha256(folder / name) != expected:
                    raise DataError(
                        f"{folder / name} was altered after it was written",
                        hint="remove the folder of codes to encode anew",
                    )
            shards = sorted(name for name in checksums if name.endswith(".npy"))
            self._codes = [np.load(folder / name, mmap_mode="r") for name in shards]
            self._captions = [
                wordings
                for name in shards
                for wordings in _read_captions((folder / name).with_suffix(".jsonl"))
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"the codes in {folder} cannot be read ({error})") from error

    def __len__(self) -> int:
        return len(self._captions)

    def codes(self, index: int) -> Int[np.ndarray, "h w"]:
        """The codes of picture `index` as int64."""
        shard, place = divmod(index, SHARD_SIZE)
        return self._codes[shard][place].astype(np.int64)

    def captions(self, index: int) -> list[str]:
        """The captions of picture `index`."""
        return self._captions[index]


def _read_captions(path: Path) -> list[list[str]]:
    """A list of captions from each line; only a line feed ends one, as captions hold the others."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
