"""The commands that draw with a DALL·E 2, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from armchair.cli.main import main
from armchair.core.files import sha256
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.pipelines.bundle import open_bundle


def command(verb: str, *words: object, model: Path, out: Path) -> int:
    given = [verb, *map(str, words), "--model", str(model), "--out", str(out), "--device", "cpu"]
    return main(given)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    scenes = Scenes(ScenesConfig(num_pictures=2, size=64))
    paths = [tmp_path / f"picture{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        Image.fromarray(scenes.pixels(index)).save(path)
    return paths


def texts(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return dict(picture.text)  # type: ignore[attr-defined]


# Generate


def test_a_dalle2_draws_from_prompts(
    capsys: pytest.CaptureFixture[str], dalle2_bundle: Path, tmp_path: Path
) -> None:
    words = ["a kiwi clock", "--count", 2, "--seed", 7, "--guidance-scale", 3, "--prior-steps", 3]
    words += ["--prior-guidance-scale", 2, "--decoder-steps", 3]
    words += ["--first-upsampler-steps", 1, "--second-upsampler-steps", 1]
    out = tmp_path / "out"
    assert command("generate", *words, model=dalle2_bundle, out=out) == 0
    printed = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert printed == ["a-kiwi-clock-s7-00.png", "a-kiwi-clock-s7-01.png", "grid.png"]
    info = texts(out / "a-kiwi-clock-s7-01.png")
    expected = {
        "prompt": "a kiwi clock", "seed": "7", "index": "1", "model": str(dalle2_bundle),
        "guidance_scale": "3.0", "prior_guidance_scale": "2.0", "prior_steps": "3",
        "decoder_steps": "3", "first_upsampler_steps": "1", "second_upsampler_steps": "1",
    }  # fmt: skip
    assert expected.items() <= info.items()


@pytest.mark.parametrize(("option", "value"), [("temperature", 1), ("top-k", 4), ("top-p", 0.5)])
def test_an_option_that_means_nothing_for_the_model_is_refused(
    capsys: pytest.CaptureFixture[str],
    dalle2_bundle: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    option: str,
    value: float,
) -> None:
    words = ["generate", "a mug", f"--{option}", value]
    assert command(*words, model=dalle2_bundle, out=tmp_path / "out") == 2
    assert f"setting of this model: got '{option.replace('-', '_')}'" in capsys.readouterr().err
    words = ["generate", "a mug", "--decoder-steps", 3]
    assert command(*words, model=tiny_bundle, out=tmp_path / "out") == 2
    assert "setting of this model: got 'decoder_steps'" in capsys.readouterr().err


def test_candidates_are_ranked_by_its_own_clip(dalle2_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["generate", "a mug", "--candidates", 3, "--count", 2]
    assert command(*words, model=dalle2_bundle, out=out) == 0
    info = [texts(out / f"a-mug-s0-0{k}.png") for k in range(2)]
    assert float(info[0]["clip_score"]) >= float(info[1]["clip_score"])
    assert info[0]["clip"] == str(dalle2_bundle)


def test_a_ddpm_needs_no_prompt(
    capsys: pytest.CaptureFixture[str], ddpm_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert command("generate", "--count", 2, model=ddpm_bundle, out=out) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "grid.png", "picture-s0-00.png", "picture-s0-01.png",
    ]  # fmt: skip
    assert command("generate", "a mug", model=ddpm_bundle, out=out) == 2
    assert "expected none, as this model reads no captions" in capsys.readouterr().err
    assert command("generate", "--candidates", 2, model=ddpm_bundle, out=out) == 2


# Starting from pictures


def test_vary(dalle2_bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["vary", pictures[0], "--count", 2, "--eta", 0.5, "--decoder-steps", 3]
    assert command(*words, model=dalle2_bundle, out=out) == 0
    names = [f"picture0-varied-s0-0{k}.png" for k in range(2)]
    assert sorted(path.name for path in out.iterdir()) == ["grid.png", *names]
    info = texts(out / names[1])
    assert (info["eta"], info["index"], info["picture"]) == ("0.5", "1", "picture0.png")
    assert info["guidance_scale"] == "1.0"


def test_another_picture_of_the_same_name_is_not_the_same(
    dalle2_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["vary", pictures[0], "--count", 1, "--decoder-steps", 2]
    for _ in range(2):
        assert command(*words, model=dalle2_bundle, out=out) == 0
    pictures[1].replace(pictures[0])
    assert command(*words, model=dalle2_bundle, out=out) == 0
    names = ["picture0-varied-s0-00-2.png", "picture0-varied-s0-00.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    first, other = (texts(out / name)["picture_sha256"] for name in reversed(names))
    assert first != other == sha256(pictures[0])


def test_interpolate(dalle2_bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("interpolate", *pictures, "--count", 3, model=dalle2_bundle, out=out) == 0
    ways = [texts(out / f"way-s0-0{k}.png")["way"] for k in range(3)]
    assert ways == ["0.0000", "0.5000", "1.0000"]
    assert texts(out / "way-s0-00.png")["picture2"] == "picture1.png"
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 3 * 64 > grid.height


def test_edit(dalle2_bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["edit", pictures[0], "a lemon mug", "a kiwi mug", "--theta", 0.5, "--count", 3]
    assert command(*words, model=dalle2_bundle, out=out) == 0
    assert (out / "grid.png").exists()
    info = texts(out / "picture0-edited-s0-02.png")
    assert (info["before"], info["after"]) == ("a lemon mug", "a kiwi mug")
    assert info["theta"] == "0.5000"


def test_redraw_with_a_mask_and_without(
    dalle2_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    out = tmp_path / "out"
    words = ["redraw", pictures[0], "a kiwi mug", "--count", 1]
    masked = [*words, "--mask", tmp_path / "mask.png", "--seed", 1]
    assert command(*masked, model=dalle2_bundle, out=out) == 0
    with Image.open(out / "picture0-redrawn-s1-00.png") as picture:
        drawn = np.asarray(picture).astype(int)
    with Image.open(pictures[0]) as picture:
        own = np.asarray(picture).astype(int)
    assert np.abs(drawn - own)[:, 32:].max() <= 1
    assert np.abs(drawn - own)[:, :32].mean() > 5
    words = [*words[:-1], 2]
    assert command(*words, "--strength", 0.5, model=dalle2_bundle, out=out) == 0
    assert texts(out / "picture0-redrawn-s0-01.png")["strength"] == "0.5"
    assert (out / "grid.png").exists()


def test_pictures_of_any_kind_serve_and_the_crop_is_said(
    capsys: pytest.CaptureFixture[str], dalle2_bundle: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("wide.jpg", "palette.gif", "clear.png")]
    Image.new("RGB", (90, 40), "red").save(paths[0])
    Image.new("P", (33, 33)).save(paths[1])
    Image.new("RGBA", (20, 50)).save(paths[2])
    words = ["interpolate", *paths, "--count", 2, "--decoder-steps", 1]
    assert command(*words, model=dalle2_bundle, out=tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("is not square: the square in its centre is used") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vary", "picture0.png", "--eta", "-1"], "eta: got -1.0"),
        (["vary", "picture0.png", "--count", "0"], "count: got 0"),
        (["vary", "picture0.png", "--guidance-scale", "0.5"], "guidance_scale: got 0.5"),
        (["vary", "picture0.png", "--decoder-steps", "21"], "decoder_steps: got 21"),
        (["vary", "picture0.png", "--decoder-steps", "0"], "decoder_steps: got 0"),
        (["vary", "picture0.png", "--percentile", "1.5"], "percentile: got 1.5"),
        (["edit", "picture0.png", " ", "a mug"], "before: got ' ', expected a text"),
        (["edit", "picture0.png", "a mug", ""], "after: got '', expected a text"),
        (["interpolate", "picture0.png"], "pictures: got 1, expected 2 to 100 files"),
        (["interpolate"], "pictures: got 0"),
        (["edit", "picture0.png", "a mug", "a clock", "--theta", "2"], "theta: got 2.0"),
        (["edit", "picture0.png", "a mug", "a mug"], "another text than before"),
        (["redraw", "picture0.png", "a mug", "--strength", "0"], "strength: got 0.0"),
        (["redraw", "picture0.png", "a mug", "--mask", "small.png"], "mask: got (32, 32)"),
        (["redraw", "picture0.png", "a mug", "--mask", "black.png"], "black all over"),
        (["redraw", "picture0.png"], "prompts: got []"),
    ],
)
def test_bad_use_ends_with_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    dalle2_bundle: Path,
    pictures: list[Path],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (32, 32), 255).save("small.png")
    Image.new("L", (64, 64), 0).save("black.png")
    assert command(*words, model=dalle2_bundle, out=tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error


@pytest.mark.parametrize("verb", ["vary", "interpolate", "edit"])
def test_where_no_prior_is_asked_it_has_no_options(
    capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert "--decoder-steps" in shown
    assert "--prior-" not in shown
    assert "--decoder-sampler" not in shown


def test_what_is_no_picture_or_no_dalle2_is_refused(
    capsys: pytest.CaptureFixture[str],
    dalle2_bundle: Path,
    tiny_bundle: Path,
    ddpm_bundle: Path,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    out = tmp_path / "out"
    assert command("vary", tmp_path / "text.png", model=dalle2_bundle, out=out) == 1
    said = capsys.readouterr().err
    assert "text.png: not a picture of a known format" in said
    assert "save it as a PNG" in said
    for missing in (tmp_path / "none.png", tmp_path):
        assert command("vary", missing, model=dalle2_bundle, out=out) == 1
        assert "give the path of a picture file" in capsys.readouterr().err
    assert command("vary", pictures[0], model=tiny_bundle, out=out) == 2
    assert "got 'dalle1', expected dalle2" in capsys.readouterr().err
    assert command("vary", pictures[0], model=ddpm_bundle, out=out) == 2
    assert "the model's CLIP: got None" in capsys.readouterr().err
    assert command("redraw", pictures[0], model=ddpm_bundle, out=out) == 0


# Measuring


def test_a_dalle2_is_measured_as_a_dalle1_is(
    capsys: pytest.CaptureFixture[str], dalle2_bundle: Path, tmp_path: Path
) -> None:
    words = ["evaluate", str(dalle2_bundle), "--prompts", "2", "--device", "cpu", "--record"]
    words += ["--decoder-steps", "2", "--candidates", "2", "--pictures", str(tmp_path / "sheets")]
    assert main(words) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores["candidates"]) == {"counts", "seen", "held_out"}
    for kind in ("seen", "held_out", "relations"):
        assert scores[kind]["prompts"] == 2
        assert 0 <= scores[kind]["all"] <= 1
    assert not {"codebook", "reconstruction", "bits"} & set(scores)
    assert scores["settings"]["sampling"]["decoder_steps"] == 2
    bundle = open_bundle(dalle2_bundle)
    assert bundle.evaluation == scores
    assert bundle.manifest["config"]["sampling"]["decoder_steps"] == 2
    assert "all attributes right, held-out pairs" in bundle.card
    assert main(["info", str(dalle2_bundle)]) == 0
    assert main(["evaluate", str(dalle2_bundle), "--scenes", "8"]) == 2
    assert "has no codebook to measure" in capsys.readouterr().err
