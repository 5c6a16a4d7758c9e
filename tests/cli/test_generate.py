"""What `armchair generate` draws with, keeps, and refuses."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from PIL import Image

from armchair.cli.main import main
from armchair.core.config import to_dict
from armchair.pipelines.bundle import open_bundle, record_scores
from armchair.pipelines.dalle1 import SamplingSettings
from armchair.sampling.tokens import sample

SAMPLE = "armchair.pipelines.dalle1.sample"


def generate(model: object, out: Path, *words: str) -> int:
    return main(["generate", *words, "--model", str(model), "--out", str(out), "--device", "cpu"])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keywords of every call of the sampler."""
    calls: list[dict[str, Any]] = []

    def spy(*inputs: Any, **settings: Any) -> Any:
        calls.append(settings)
        return sample(*inputs, **settings)

    monkeypatch.setattr(SAMPLE, spy)
    return calls


def test_long_prompts_that_begin_alike_have_files_of_their_own(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    start = "a small teapot made of cheese to the left of a large"
    for end in ("kiwi clock", "lemon clock"):
        assert generate(tiny_bundle, tmp_path, f"{start} {end}", "--truncate") == 0
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(names) == 2
    assert all(name.startswith("a-small-teapot-made-of-cheese-to-the-left-") for name in names)
    assert all(len(name) == 48 + len("-s0-00.png") for name in names)


def test_settings_reach_the_sampler_and_the_pictures(
    calls: list[dict[str, Any]], tiny_bundle: Path, tmp_path: Path
) -> None:
    words = ["a kiwi clock", "--count", "2", "--seed", "7", "--temperature", "0.8"]
    words += ["--top-k", "5", "--top-p", "0.9", "--guidance-scale", "3"]
    assert generate(tiny_bundle, tmp_path / "out", *words) == 0
    (call,) = calls
    assert call["keys"] == [(7, 0), (7, 1)]
    given = {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "guidance_scale": 3.0}
    assert {name: call[name] for name in given} == given
    for index in range(2):
        with Image.open(tmp_path / "out" / f"a-kiwi-clock-s7-{index:02d}.png") as picture:
            assert picture.text == {  # type: ignore[attr-defined]
                "prompt": "a kiwi clock",
                "seed": "7",
                "index": str(index),
                "temperature": "0.8",
                "top_k": "5",
                "top_p": "0.9",
                "guidance_scale": "3.0",
                "precision": "fp32",
                "model": str(tiny_bundle),
            }


def test_settings_that_are_not_given_are_the_models_own(
    calls: list[dict[str, Any]], tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle)
    own = to_dict(SamplingSettings(temperature=0.5, top_k=3, guidance_scale=2.0))
    record_scores(bundle, "{}", card="", config={**bundle.manifest["config"], "sampling": own})
    assert generate(tiny_bundle, tmp_path / "out", "a mug", "--top-k", "4") == 0
    used = {"temperature": 0.5, "top_k": 4, "top_p": None, "guidance_scale": 2.0}
    assert {name: calls[0][name] for name in used} == used


def test_a_picture_that_was_drawn_otherwise_is_not_replaced(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    for words in (["a mug"], ["a mug", "--top-k", "2"], ["a mug"], ["a mug", "--top-k", "3"]):
        assert generate(tiny_bundle, tmp_path, *words) == 0
    found = {}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            found[path.name] = picture.text["top_k"]  # type: ignore[attr-defined]
    assert found.pop("a-mug-s0-00-2.png") == "2"
    assert found.pop("a-mug-s0-00-3.png") == "3"
    assert list(found) == ["a-mug-s0-00.png"]


def _png_of(side: int) -> bytes:
    """The head of a PNG that claims to have this side."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", crc32(header))


@pytest.mark.parametrize("content", [b"", b"mine", _png_of(10), _png_of(12_000), _png_of(10**6)])
def test_a_file_of_ones_own_is_not_replaced(
    tiny_bundle: Path, tmp_path: Path, content: bytes
) -> None:
    """Whatever it is: empty, no picture, cut off, or too large to be opened."""
    (tmp_path / "a-clock-s0-00.png").write_bytes(content)
    assert generate(tiny_bundle, tmp_path, "a clock") == 0
    assert (tmp_path / "a-clock-s0-00.png").read_bytes() == content
    assert (tmp_path / "a-clock-s0-00-2.png").exists()


def test_what_was_drawn_before_an_interruption_stays(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    batches: list[int] = []

    def interrupted(*inputs: Any, keys: Any, **settings: Any) -> Any:
        if batches:
            raise KeyboardInterrupt
        batches.append(len(keys))
        return sample(*inputs, keys=keys, **settings)

    monkeypatch.setattr(SAMPLE, interrupted)
    out = tmp_path / "out"
    assert generate(tiny_bundle, out, "a mug", "--count", "40", "--top-k", "1") == 130
    kept = sorted(out.iterdir())
    assert 0 < len(kept) == batches[0] < 40
    assert capsys.readouterr().out.splitlines() == [str(path) for path in kept]
    for path in kept:
        with Image.open(path) as picture:
            picture.load()


def test_too_many_pictures_are_refused_before_the_first(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert generate(tiny_bundle, out, "a mug", "a kiwi clock", "--count", "5001") == 2
    error = capsys.readouterr().err
    assert "got 10002, expected at most 10,000, the prompts times count" in error
    assert "hint:" in error
    assert not list(out.glob("*.png"))


@pytest.mark.parametrize("there", [True, False])
def test_a_refused_call_leaves_no_new_folder(
    tiny_bundle: Path, tmp_path: Path, there: bool
) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    assert generate(tiny_bundle, out, "a kiwi clock", "--guidance-scale", "0.1") == 2
    assert out.exists() is there


def test_a_mistyped_path_is_not_looked_for_on_the_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fetch(repository: str) -> Path:
        raise AssertionError(repository)

    monkeypatch.setattr("armchair.pipelines.bundle_search._fetch", fetch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert generate("runs/tny", tmp_path / "out", "a mug") == 2
    error = capsys.readouterr().err
    assert "model: got 'runs/tny'" in error
    assert "hint: `armchair models runs`" in error
