from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from armchair.cli.main import main
from armchair.core.errors import UsageError
from armchair.data.scenes import draw, prompts
from armchair.evaluation.candidates import candidates_curve, plot_candidates
from armchair.evaluation.clip_report import evaluate_clip
from armchair.pipelines.bundle import CARD, open_bundle
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle1 import DALLE1

RIGHT_AT = 5  # which candidate of each prompt is right


class Draws(DALLE1):
    """Draws blanks, and one picture of each prompt that is right."""

    def stream(self, texts: Any, *, count: int, **_: Any) -> Any:
        scenes = {p.text: p.scene for kind in ("seen", "held_out") for p in prompts(kind, 3, 0)}
        for text, k in itertools.product(texts, range(count)):
            blank = np.full((128, 128, 3), 250, np.uint8)
            yield Image.fromarray(draw(scenes[text], 128) if k == RIGHT_AT else blank)


class Likes(CLIP):
    """Likes pictures with something in them."""

    def scores(self, pictures: Any, texts: Any, *, truncate: bool = False) -> torch.Tensor:
        spread = [float(np.asarray(picture).std()) for picture in pictures]
        return torch.tensor([[value] for value in spread])


@pytest.fixture
def draws(tiny_model: DALLE1) -> Draws:
    return Draws(tiny_model.tokenizer, tiny_model.autoencoder, tiny_model.transformer)


@pytest.fixture
def likes(tiny_clip: CLIP) -> Likes:
    return Likes(tiny_clip.tokenizer, tiny_clip.model)


def test_the_curve_rises_where_the_right_candidate_comes(draws: Draws, likes: Likes) -> None:
    told: list[tuple[int, int]] = []
    curve = candidates_curve(
        draws, likes, num_prompts=3, candidates=15, on_progress=lambda *n: told.append(n)
    )
    assert curve["counts"] == [1, 2, 4, 8]
    for kind in ("seen", "held_out"):
        assert [part["all"] for part in curve[kind]] == [0, 0, 0, 1]
        assert curve[kind][-1]["object"] == 1
        assert curve[kind][0]["prompts"] == 3
    assert told == [(done, 6) for done in range(1, 7)]
    json.dumps(curve)


def test_no_candidates_are_refused(draws: Draws, likes: Likes) -> None:
    with pytest.raises(UsageError, match="candidates: got 0"):
        candidates_curve(draws, likes, num_prompts=1, candidates=0)


def test_the_curve_is_plotted(tmp_path: Path) -> None:
    parts = [{"all": 0.2}, {"all": 0.5}]
    curve = {"counts": [1, 2], "seen": parts, "held_out": parts}
    plot_candidates(curve, tmp_path / "candidates.png")
    with Image.open(tmp_path / "candidates.png") as picture:
        assert picture.size == (550, 385)


def test_the_command_measures_candidates(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, clip_bundle: Path, tmp_path: Path
) -> None:
    command = ["evaluate", str(tiny_bundle), "--prompts", "2", "--scenes", "4", "--device", "cpu"]
    command += ["--candidates", "2", "--clip", str(clip_bundle), "--record"]
    assert main([*command, "--pictures", str(tmp_path / "sheets")]) == 0
    curve = json.loads(capsys.readouterr().out)["candidates"]
    assert curve["counts"] == [1, 2]
    assert len(curve["seen"]) == len(curve["held_out"]) == 2
    assert (tmp_path / "sheets" / "candidates.png").exists()
    assert "best of 2 by CLIP, held-out pairs | 0.0% |" in (tiny_bundle / CARD).read_text()


# A CLIP's own scores


def test_an_untrained_clip_scores_near_chance(tiny_clip: CLIP) -> None:
    scores = evaluate_clip(tiny_clip, seed=1)
    assert scores["retrieval"]["pictures"] == 256
    assert scores["retrieval"]["caption_recall_1"] < 0.1
    assert set(scores["zero_shot"]) == {"object", "material", "background", "pictures"}
    assert scores["zero_shot"]["object"] < 0.4
    assert scores["settings"] == {"seed": 1, "truncate": False}
    assert {"commit", "version", "hardware", "date"} <= set(scores)


def test_the_command_measures_a_clip_and_records(
    capsys: pytest.CaptureFixture[str], clip_bundle: Path
) -> None:
    assert main(["evaluate", str(clip_bundle), "--record", "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert open_bundle(clip_bundle).evaluation == scores
    card = (clip_bundle / CARD).read_text()
    assert "| picture to caption, recall at 1 / 5 |" in card
    assert "true of no other (seed 0)" in card
    assert open_bundle(clip_bundle).manifest["config"]["vocabulary"] == "own"


@pytest.mark.parametrize(
    "words", [["--temperature", "1"], ["--candidates", "4"], ["--pictures", "sheets"]]
)
def test_a_clip_has_nothing_to_draw(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    clip_bundle: Path,
    tmp_path: Path,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(clip_bundle), *words, "--device", "cpu"]) == 2
    assert "is a CLIP and draws no pictures" in capsys.readouterr().err
