import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from armchair.core import provenance
from armchair.core.provenance import commit, hardware, today, version


@pytest.fixture(autouse=True)
def _forget_the_commit() -> Iterator[None]:
    commit.cache_clear()
    yield
    commit.cache_clear()


def checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own that the code seems to run from."""
    source = folder / "src" / "armchair" / "core" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(source))
    return source


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkout(tmp_path, monkeypatch)
    git(tmp_path, "init")
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-m", "first")
    clean = commit()
    assert re.fullmatch("[0-9a-f]{40}", clean or "")
    source.write_text("altered")
    commit.cache_clear()
    assert commit() == f"{clean}+"


def test_no_commit_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout(tmp_path, monkeypatch)
    assert commit() is None
    (tmp_path / ".git").mkdir()  # which is no repository
    commit.cache_clear()
    assert commit() is None


def test_where_and_when() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", today())
    assert re.search(r", \d+ cores$", hardware(torch.device("cpu")))
