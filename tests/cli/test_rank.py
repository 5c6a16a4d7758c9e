"""What `armchair rank` prints, shows and refuses; and pictures that are kept for their rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from armchair.cli.main import main
from armchair.core.images import contact_sheet
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle1 import DALLE1
from armchair.pipelines.dalle2 import DALLE2


def rank(model: Path, out: Path, *words: object) -> int:
    command = ["rank", *map(str, words), "--model", str(model), "--device", "cpu"]
    return main([*command, "--out", str(out / "ranked.png")])


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for name in ("red", "lime", "blue", "white"):
        paths.append(tmp_path / f"{name}.png")
        Image.new("RGB", (32, 32), name).save(paths[-1])
    return paths


def test_pictures_are_listed_and_shown_best_first(
    capsys: pytest.CaptureFixture[str],
    tiny_clip: CLIP,
    clip_bundle: Path,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    assert rank(clip_bundle, tmp_path / "out", "a kiwi clock", *pictures) == 0
    printed = capsys.readouterr()
    rows = [line.split("\t") for line in printed.out.splitlines()]
    scores = [float(score) for score, _ in rows]
    assert scores == sorted(scores, reverse=True)
    assert {Path(name) for _, name in rows} == set(pictures)
    shown = [Image.open(path) for path in pictures]
    expected = tiny_clip.scores(shown, ["a kiwi clock"])[:, 0].tolist()
    for score, name in rows:
        assert float(score) == pytest.approx(expected[pictures.index(Path(name))], abs=0.02)
    with Image.open(tmp_path / "out" / "ranked.png") as sheet:
        assert sheet.text["prompt"] == "a kiwi clock"  # type: ignore[attr-defined]
        by_hand = contact_sheet([Image.open(name) for _, name in rows], columns=2)
        assert np.array_equal(np.asarray(sheet), np.asarray(by_hand))
    assert "not square" not in printed.err


def test_pictures_of_any_kind_are_ranked_and_the_crop_is_said(
    capsys: pytest.CaptureFixture[str], clip_bundle: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("wide.jpg", "palette.gif", "clear.png", "grey.png")]
    Image.new("RGB", (90, 40), "red").save(paths[0])
    Image.new("P", (33, 33)).save(paths[1])
    Image.new("RGBA", (20, 50)).save(paths[2])
    Image.new("I;16", (64, 64)).save(paths[3])
    assert rank(clip_bundle, tmp_path / "out", "a mug", *paths) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert "2 of 4 pictures are not square: the square in the centre was judged" in printed.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a mug"], 2, "pictures: got 0"),
        (["", "red.png"], 2, "caption"),
        (["mug " * 200, "red.png"], 2, "--truncate"),
        (["a mug", "none.png"], 1, "none.png: file cannot be opened"),
        (["a mug", "text.png"], 1, "text.png: not a picture of a known format"),
        (["a mug", "."], 1, "file cannot be opened"),
    ],
)
def test_what_cannot_be_ranked_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    clip_bundle: Path,
    pictures: list[Path],
    tmp_path: Path,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    assert rank(clip_bundle, tmp_path / "out", *words) == code
    error = capsys.readouterr().err
    assert message in error
    assert "hint:" in error
    assert not (tmp_path / "out" / "ranked.png").exists()


def test_a_folder_is_no_file_for_the_sheet(
    capsys: pytest.CaptureFixture[str], clip_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    command = ["rank", "a mug", *map(str, pictures), "--model", str(clip_bundle)]
    assert main([*command, "--out", str(tmp_path), "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert f"cannot write {tmp_path}: it is a folder" in printed.err
    assert not printed.out  # nothing was ranked


def test_a_model_that_draws_does_not_rank(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    assert rank(tiny_bundle, tmp_path / "out", "a mug", *pictures) == 2
    assert "got 'dalle1', expected clip or dalle2" in capsys.readouterr().err


def test_the_clip_of_a_dalle2_ranks(
    capsys: pytest.CaptureFixture[str],
    tiny_dalle2: DALLE2,
    dalle2_bundle: Path,
    ddpm_bundle: Path,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    assert rank(dalle2_bundle, tmp_path / "out", "a mug", *pictures) == 0
    best, _, path = capsys.readouterr().out.splitlines()[0].partition("\t")
    assert tiny_dalle2.clip is not None
    with Image.open(path) as picture:
        score = tiny_dalle2.clip.scores([picture], ["a mug"])
    assert float(best) == pytest.approx(float(score), abs=1e-3)
    assert rank(ddpm_bundle, tmp_path / "out", "a mug", *pictures) == 2
    error = capsys.readouterr().err
    assert f"the CLIP of the model {ddpm_bundle}: got None, expected one" in error


# Candidates


def test_the_best_candidates_are_kept_best_first(
    capsys: pytest.CaptureFixture[str],
    tiny_model: DALLE1,
    tiny_bundle: Path,
    clip_bundle: Path,
    tmp_path: Path,
) -> None:
    from armchair.pipelines import load

    command = ["generate", "a mug", "a kiwi clock", "--model", str(tiny_bundle), "--device", "cpu"]
    command += ["--candidates", "5", "--count", "2", "--clip", str(clip_bundle)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == [
        "000-a-mug-s0-00.png",
        "000-a-mug-s0-01.png",
        "001-a-kiwi-clock-s0-00.png",
        "001-a-kiwi-clock-s0-01.png",
        "grid.png",
    ]
    model, clip = load(str(tiny_bundle), device="cpu"), load(str(clip_bundle), device="cpu")
    drawn = model.generate("a kiwi clock", count=5)
    scores = clip.scores(drawn, ["a kiwi clock"])[:, 0]
    for rank_, index in enumerate(scores.argsort(descending=True).tolist()[:2]):
        with Image.open(paths[2 + rank_]) as kept:
            assert np.array_equal(np.asarray(kept), np.asarray(drawn[index]))
            chunks: dict[str, Any] = kept.text  # type: ignore[attr-defined]
        assert chunks["index"] == str(index)
        assert float(chunks["clip_score"]) == pytest.approx(float(scores[index]), abs=1e-3)
        assert chunks["candidates"] == "5"
        assert chunks["clip"] == str(clip_bundle)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--candidates", "3", "--count", "4"], "candidates: got 3, expected at least 4"),
        (["--candidates", "4"], "clip: got None, expected a CLIP"),
        (["--candidates", "0"], "candidates: got 0, expected at least 1"),
        (["--clip", "CLIP"], "expected none, as nothing is ranked"),
        (["--candidates", "4", "--count", "0"], "count: got 0"),
        (
            ["--candidates", "20000", "--clip", "CLIP"],
            "candidates: got 20000, expected 1 to 10,000",
        ),
        (["--candidates", "4", "--clip", "MODEL"], "got 'dalle1', expected clip or dalle2"),
        (["--candidates", "4", "--clip", "no-such-clip"], "clip: got 'no-such-clip'"),
    ],
)
def test_candidates_that_make_no_sense(
    capsys: pytest.CaptureFixture[str],
    tiny_bundle: Path,
    clip_bundle: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    model = str(tiny_bundle)
    named = {"MODEL": model, "CLIP": str(clip_bundle)}
    words = [named.get(word, word) for word in words]
    out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["generate", "a mug", *words, "--model", model, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hint:" in error
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_clip_does_not_draw(
    capsys: pytest.CaptureFixture[str], clip_bundle: Path, tmp_path: Path
) -> None:
    assert main(["generate", "a mug", "--model", str(clip_bundle), "--out", str(tmp_path)]) == 2
    assert "got 'clip', expected dalle1" in capsys.readouterr().err
