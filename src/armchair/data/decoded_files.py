"""Which files of a folder have been decoded before, so that none is decoded twice to check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from armchair.core.files import write_text


class DecodedFiles:
    """The names, sizes, and times of change of files that could be decoded.

    A file that was changed since is not known. A list that cannot be read, or was made under other
    limits, is taken for an empty one.

    Args:
        path: Where the list is kept; None to keep none.
        limits: What a file was required to meet: JSON data.
    """

    def __init__(self, path: Path | None, limits: Any) -> None:
        self._path = path
        self._limits = limits
        self._before = _read(path, limits)
        self._now: dict[str, list[int]] = {}

    def __contains__(self, file: tuple[str, Path]) -> bool:
        """Whether the file of this name, at this path, was decoded and is as it was then."""
        name, path = file
        known = self._before.get(name)
        return known is not None and known == _identity(path)

    def add(self, name: str, path: Path) -> None:
        """Remember that a file could be decoded."""
        self._now[name] = _identity(path)

    def save(self) -> None:
        """Write the list with what was added; a scan that was stopped forgets nothing."""
        files = {**self._before, **self._now}
        if self._path is not None and files != self._before:
            content = json.dumps({"limits": self._limits, "files": files})  # any name as ASCII
            write_text(self._path, content + "\n")


def _identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path | None, limits: Any) -> dict[str, list[int]]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_bytes())
        files = content["files"] if content["limits"] == limits else {}
        return {str(name): list(identity) for name, identity in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
