"""`armchair info` and `armchair models` on folders that are not as they should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from armchair.cli.main import main
from armchair.pipelines.bundle import CARD, FORMAT, MANIFEST

STRANGE = {
    "list": b"[]",
    "list of a bundle": json.dumps([FORMAT]).encode(),
    "binary": b"\x80\x04\xff\x00" * 100,
    "binary of a bundle": b"\x80\x04" + FORMAT.encode() + b"\xff",
    "huge": FORMAT.encode() + b" " * (5 << 20),
    "deep": FORMAT.encode() + b"[" * 100_000,
    "empty": b"",
}


def test_a_bundle_needs_no_card(capsys: pytest.CaptureFixture[str], tiny_bundle: Path) -> None:
    (tiny_bundle / CARD).unlink()
    assert main(["info", str(tiny_bundle)]) == 0
    assert capsys.readouterr().out.startswith("# tiny\n")
    assert main(["models", str(tiny_bundle)]) == 0
    assert f"{tiny_bundle}\tdalle1\t" in capsys.readouterr().out


def test_a_card_that_is_no_text_is_an_error(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path
) -> None:
    (tiny_bundle / CARD).write_bytes(b"\xff\xfe")
    assert main(["info", str(tiny_bundle)]) == 1
    assert "hint: save it as UTF-8" in capsys.readouterr().err
    assert main(["models", str(tiny_bundle)]) == 0


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_a_strange_manifest_is_an_error_of_its_folder_alone(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, content: bytes
) -> None:
    strange = tiny_bundle.parent / "strange"
    strange.mkdir()
    (strange / MANIFEST).write_bytes(content)
    assert main(["info", str(strange)]) == 1
    error = capsys.readouterr().err
    assert MANIFEST in error
    assert "hint:" in error
    assert len(error) < 1000
    assert main(["models", str(tiny_bundle.parent)]) == 0
    listed = capsys.readouterr().out
    assert f"{tiny_bundle}\tdalle1\t" in listed
    is_a_bundles = FORMAT.encode() in content and len(content) < 4 << 20
    assert (f"{strange}\tdamaged: " in listed) is is_a_bundles


def test_a_folder_in_place_of_a_manifest_is_no_bundle(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "odd" / MANIFEST).mkdir(parents=True)
    assert main(["info", str(tmp_path / "odd")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert main(["models", str(tmp_path)]) == 0
    assert "odd" not in capsys.readouterr().out
