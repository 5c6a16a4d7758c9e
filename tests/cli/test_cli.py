from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from armchair.cli.main import VERBS, main


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:  # tyro ends the program itself
        code = stop.code if isinstance(stop.code, int) else 1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = _run(capsys, verb, "--help")
    assert code == 0
    assert f"usage: armchair {verb}" in out


def test_hints_name_the_recipe_that_has_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scenes-tiny", "--autoencoder-training.batch-size", "0"]
    code, _, error = _run(capsys, "train", *words)
    assert code == 2
    assert "batch_size: got 0" in error
    assert "hint: `armchair train scenes-tiny --help` lists the options" in error


def test_the_command_itself_has_help_and_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "--help")[0] == 0
    assert _run(capsys)[0] == 2
    assert _run(capsys, "--version")[1].strip()


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["genrate"], "did you mean 'generate'?"),
        (["train", "scenes-tny"], "did you mean 'scenes-tiny'?"),
        (["generate", "a mug", "--model", "dalle1-scene"], "model"),
        (["generate", "a mug", "--tempreature", "1"], "--temperature"),
        (["train", "scenes-tiny", "--transformer.num-layer", "3"], "--transformer.num-layers"),
    ],
)
def test_unknown_names_get_a_suggestion_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], suggestion: str
) -> None:
    code, _, err = _run(capsys, *words)
    assert code == 2
    assert suggestion in err
    assert "hint: " in err
    assert "Traceback" not in err


def test_generate_writes_pictures_a_grid_and_their_settings(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pictures"
    code, printed, _ = _run(
        capsys, "generate", "a kiwi clock", "--model", tiny_bundle, "--count", 4, "--seed", 7,
        "--out", out, "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    paths = [Path(line) for line in printed.splitlines()]
    assert [path.name for path in paths] == [
        *(f"a-kiwi-clock-s7-{index:02d}.png" for index in range(4)),
        "grid.png",
    ]
    with Image.open(paths[2]) as picture:
        assert picture.size == (64, 64)
        assert picture.text["prompt"] == "a kiwi clock"  # type: ignore[attr-defined]
        assert picture.text["seed"] == "7"  # type: ignore[attr-defined]
        assert picture.text["index"] == "2"  # type: ignore[attr-defined]


def test_prompts_come_from_files_and_standard_input(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "prompts.txt").write_text("a lemon lamp\n\na donut mug\n", "utf-8-sig")
    monkeypatch.setattr("sys.stdin", io.StringIO("a cheese house\n"))
    code, printed, _ = _run(
        capsys, "generate", "-", "--prompts-file", tmp_path / "prompts.txt",
        "--model", tiny_bundle, "--out", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    assert [Path(line).name for line in printed.splitlines()] == [
        "000-a-cheese-house-s0-00.png",
        "001-a-lemon-lamp-s0-00.png",
        "002-a-donut-mug-s0-00.png",
        "grid.png",
    ]


def test_prompts_that_are_no_text_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"a mug\xff")
    strange = io.TextIOWrapper(io.BytesIO(b"a mug\xff"), "utf-8")
    monkeypatch.setattr("sys.stdin", strange)
    for words in (["-"], ["--prompts-file", tmp_path / "prompts.txt"]):
        code, _, told = _run(capsys, "generate", *words, "--out", tmp_path / "out")
        assert code == 2
        assert "cannot be read" in told
        assert "UTF-8" in told


@pytest.mark.parametrize(
    "words",
    [
        ["generate"],
        ["generate", ""],
        ["generate", "a mug", "--count", "0"],
        ["generate", "a mug", "--count", "many"],
        ["generate", "a mug", "--top-k", "0"],
        ["generate", "a mug", "--temperature", "-1"],
        ["generate", "a mug", "--device", "cuda:99"],
        ["generate", "a mug", "--device", "abacus"],
        ["generate", "avocado " * 300],
        ["generate", "--prompts-file", "no-such-file.txt"],
        ["train"],
        ["train", "scenes-tiny", "--data", "folder:no-such-folder"],
        ["train", "scenes-tiny", "--data", "nonsense"],
        ["train", "scenes-tiny", "--autoencoder.width", "33"],
        ["train", "scenes-tiny", "--transformer.dim", "97"],
        ["train", "scenes-tiny", "--stage", "transformer"],
        ["train", "scenes-tiny", "--start-from", "no-such-model"],
        ["evaluate", "--prompts", "0"],
        ["evaluate", "--scenes", "0"],
        ["evaluate", "--prompts", "few"],
        ["info", "no-such-model"],
        ["scenes", "--count", "0"],
        ["scenes", "--size", "8"],
        ["plot", "no-such-run"],
        ["models", "no-such-folder"],
    ],
)
def test_bad_use_is_one_screen_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path, words: list[str]
) -> None:
    if words[0] == "generate":
        words = [*words, "--model", str(tiny_bundle)]
    if words[0] in ("train", "generate", "scenes") and len(words) > 1:
        words = [*words, "--out", str(tmp_path / "out")]
    code, _, err = _run(capsys, *words)
    assert code == 2
    assert "Traceback" not in err
    assert 0 < len(err.splitlines()) < 40
    assert "hint: " in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--decoder.channels", "7"], "decoder.channels: got 7"),
        (["--decoder.text.dim=33"], "decoder.text.dim: got 33"),
        (["--decoder.patch-size", "3"], "decoder.image_size: got 16"),
        (["--prior.embedding-dim", "9", "--decoder.channels", "7"], "decoder.channels: got 7"),
        (["--decoder.channels", "7", "--first-upsampler.channels", "8"], "channels: got 7"),
    ],
)
def test_an_error_in_a_part_names_the_part(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], message: str
) -> None:
    """As far as the options that were given tell it."""
    code, _, err = _run(capsys, "train", "dalle2-scenes-tiny", *words, "--out", tmp_path)
    assert code == 2
    assert f"armchair: {message}" in err


def test_a_file_where_the_folder_should_be_is_a_failure(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("in the way")
    code, _, err = _run(
        capsys, "generate", "a mug", "--model", tiny_bundle, "--out", tmp_path / "out"
    )
    assert code == 1
    assert "cannot write" in err
    assert "hint:" in err


def test_an_altered_model_is_a_failure(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    weights = tiny_bundle / "transformer.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    words = ["generate", "a mug", "--model", tiny_bundle, "--out", tmp_path / "out"]
    code, out, err = _run(capsys, *words)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        f"armchair: {weights} is not what the manifest says: it was altered or cut short",
        "hint: copy or download it again",
    ]


def test_a_loss_that_is_not_finite_is_a_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    training = "--autoencoder-training"
    words = ["train", "scenes-tiny", "--stage", "autoencoder", "--out", tmp_path]
    words += ["--data.num-pictures", 64, "--data.num-validation", 4, "--autoencoder.width", 8]
    words += [f"{training}.num-images", 320, f"{training}.num-workers", 0]
    words += [f"{training}.optimizer.learning-rate.knots.1.value", 1e30]
    code, _, err = _run(capsys, *words)
    assert code == 1
    assert "Traceback" not in err
    assert "expected a finite number" in err
    assert "hint: lower the learning rate" in err


def test_debug_shows_where_an_error_arose(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path
) -> None:
    words = ["generate", "a mug", "--count", "0", "--model", tiny_bundle]
    assert "Traceback" not in _run(capsys, *words)[2]
    assert "Traceback" in _run(capsys, *words, "--debug")[2]


def test_models_lists_bundles_and_says_which_are_damaged(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path
) -> None:
    code, out, _ = _run(capsys, "models", tiny_bundle.parent)
    assert code == 0
    assert f"{tiny_bundle}\tdalle1" in out
    (tiny_bundle / "tokenizer.json").unlink()
    assert "damaged" in _run(capsys, "models", tiny_bundle.parent)[1]


def test_info_tells_what_a_model_is(capsys: pytest.CaptureFixture[str], tiny_bundle: Path) -> None:
    code, out, _ = _run(capsys, "info", tiny_bundle)
    assert code == 0
    assert "An untrained toy." in out
    manifest = json.loads(_run(capsys, "info", tiny_bundle, "--json")[1])
    assert manifest["kind"] == "dalle1"
    assert manifest["evaluation"] is None


def test_scenes_writes_a_folder_that_can_be_trained_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from armchair.data.folder import FolderConfig, FolderPictures

    out = tmp_path / "scenes"
    code, _, _ = _run(capsys, "scenes", "--count", 10, "--size", 64, "--out", out)
    assert code == 0
    with Image.open(tmp_path / "scenes-sheet.png") as sheet:
        assert sheet.size[0] > 8 * 64
    pictures = FolderPictures.scan(FolderConfig(path=out))
    assert len(pictures) == 10
    assert len(pictures.captions(0)) == 8


def test_evaluate_measures_and_records(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    code, out, err = _run(
        capsys, "evaluate", tiny_bundle, "--prompts", 6, "--scenes", 8, "--record",
        "--json", tmp_path / "scores.json", "--pictures", tmp_path / "sheets", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores == json.loads(out)
    assert set(scores["reconstruction"]) == {"psnr_db", "reader_accuracy"}
    assert set(scores["codebook"]) >= {"used_fraction", "perplexity"}
    assert set(scores["bits"]) == {"validation", "true_elbo"}
    for kind in ("seen", "held_out", "relations"):
        assert set(scores[kind]) >= {"all", "object", "material", "background", "size", "prompts"}
        assert scores[kind]["prompts"] == 6
        assert 0 <= scores[kind]["all"] <= 1
    assert (tmp_path / "sheets" / "seen-wrong.png").exists()
    assert "## Scores" in _run(capsys, "info", tiny_bundle)[1]


def test_starting_the_command_needs_no_torch() -> None:
    script = (
        "import sys; from armchair.cli.main import main; main(['--help']); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_what_the_library_says_is_heard_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        main(["--version"])
    logging.getLogger("armchair.core.jit").info("compiling")
    assert capsys.readouterr().err == "armchair: compiling\n"
