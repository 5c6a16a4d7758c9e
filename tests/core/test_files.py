import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armchair.core import files
from armchair.core.errors import OutputError
from armchair.core.files import (
    atomic_path,
    finite_or_null,
    make_folder,
    output_error,
    sha256,
    write_bytes,
    write_json,
    write_text,
)


def failing(number: int) -> Callable[..., Any]:
    """A system call that fails with this errno."""

    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, crash: type[BaseException]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise crash


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "a.txt"
    write_text(path, "old")
    write_text(path, "neü")
    assert path.read_bytes() == "neü".encode()
    assert names(path.parent) == ["a.txt"]


def test_the_old_file_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # the same file system, so that renaming is atomic
    assert path.read_text() == "half"


@pytest.mark.parametrize("crash", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_crash_in_the_block_leaves_the_old_file(
    tmp_path: Path, crash: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(crash):
        write_half(path, crash)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("call", "number", "hint"),
    [
        ("fsync", errno.ENOSPC, "the disk is full"),
        ("fsync", errno.EDQUOT, "quota"),
        ("replace", errno.EACCES, "choose a folder that you may write to"),
    ],
)
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, hint: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(OutputError, match=f"cannot write .*a.txt.*{os.strerror(number)}") as caught:
        write_text(path, "new")
    monkeypatch.undo()
    assert hint in str(caught.value.hint)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_disk_that_fills_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(Path, "write_bytes", failing(errno.ENOSPC))
    with pytest.raises(OutputError, match="free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "mkstemp", failing(errno.EROFS))
    with pytest.raises(OutputError, match="the file system is read-only"):
        write_bytes(tmp_path / "a", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="choose a folder that you may write to"):
        write_bytes(tmp_path / "a", b"")


def test_a_name_that_a_folder_or_a_file_has_taken(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="a folder stands where a file is needed"):
        write_text(tmp_path / "folder", "")
    write_text(tmp_path / "file", "")
    with pytest.raises(OutputError, match="hint"):
        write_text(tmp_path / "file" / "inner", "")
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        make_folder(tmp_path / "file")
    assert names(tmp_path) == ["file", "folder"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_make_folder_proves_that_it_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert names(tmp_path / "a" / "b") == []
    monkeypatch.setattr(files.tempfile, "TemporaryFile", failing(errno.EACCES))
    with pytest.raises(OutputError, match="choose a folder that you may write to"):
        make_folder(tmp_path / "a")


def test_json_is_readable_text(tmp_path: Path) -> None:
    value = {"name": "Süßkartoffel", "sizes": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Süßkartoffel" in text
    assert json.loads(text) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_that_others_cannot_read_is_refused(tmp_path: Path, number: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"rate": 1.0})
    with pytest.raises(OutputError, match=r"a\.json") as caught:
        write_json(path, {"rates": [1.0, {"last": number}]})
    assert "finite numbers" in str(caught.value.hint)
    assert json.loads(path.read_text()) == {"rate": 1.0}
    assert names(tmp_path) == ["a.json"]


def test_measurements_that_are_not_finite_are_null(tmp_path: Path) -> None:
    measured = {"a": [1.5, math.inf, (2, -math.inf)], "b": {"c": math.nan, "d": None, "e": "nan"}}
    shown = finite_or_null(measured)
    assert shown == {"a": [1.5, None, [2, None]], "b": {"c": None, "d": None, "e": "nan"}}
    assert measured["a"][1] == math.inf
    write_json(tmp_path / "a.json", shown)


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_sha256(tmp_path: Path, size: int) -> None:
    data = bytes(size)
    write_bytes(tmp_path / "a", data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_an_unknown_failure_has_a_hint_too(tmp_path: Path) -> None:
    error = output_error(tmp_path, OSError("odd"))
    assert "odd" in str(error)
    assert error.hint == "choose another place to write to"
