"""Files that are whole or absent: atomic writes, checksums, and folders of one process alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armchair.core.errors import OutputError, UsageError

_CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without error.

    The bytes reach the disk before the name does, so that a crash or a full disk leaves either the
    old file or the new one, never half of one.

    Args:
        path: The file to write; its folder is made.

    Yields:
        The temporary path to write to.

    Raises:
        OutputError: The folder is read-only, the disk is full, or the name is taken by a folder.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def output_error(path: Path, error: OSError) -> OutputError:
    """Turn what the operating system said about writing `path` into an error with a hint."""
    hint = {
        errno.ENOSPC: "the disk is full: free some space, then run the same command again",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "the file system is read-only: choose another folder",
        errno.ENOTDIR: "a part of this path is a file, not a folder",
        errno.EEXIST: "a file stands where a folder is needed",
        errno.EISDIR: "a folder stands where a file is needed",
    }.get(error.errno or 0, "choose another place to write to")
    return OutputError(f"cannot write {path} ({error.strerror or error})", hint=hint)


def make_folder(path: Path) -> Path:
    """Make `path` and prove that it can be written to, before long work starts.

    Raises:
        OutputError: It cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise output_error(path, error) from error
    return path


def check_file(path: Path) -> None:
    """Make a file's folder, and prove that the file can be written, before long work starts.

    Raises:
        OutputError: It cannot, or there is a folder of its name.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise OutputError(
            f"cannot write {path}: it is a folder", hint=f"give a file, such as {path / 'file'}"
        )


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically; see `atomic_path`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically; see `atomic_path`.

    Raises:
        OutputError: A number in it is not finite, or the file cannot be written.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        hint = "JSON holds finite numbers alone: look for nan and inf among the settings"
        raise OutputError(f"cannot write {path} ({error})", hint=hint) from error
    write_text(path, text + "\n")


def finite_or_null(value: Any) -> Any:
    """JSON data of measurements, with null for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite_or_null(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` reach the disk, where its file system can."""
    with contextlib.suppress(OSError):  # some file systems do not sync folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; a process that ends, however it does, lets go.

    Raises:
        UsageError: Another process is at work there.
        OutputError: Its .lock cannot be written.
    """
    path = folder / ".lock"
    try:
        file = path.open("a")
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        try:  # unlike flock's, this lock is not handed down to the processes that load data
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is at work in {folder}",
                hint="wait for its end, or choose another --out",
            ) from error
        except OSError as error:
            raise output_error(path, error) from error
        yield
