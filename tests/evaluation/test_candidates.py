from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from armchair.cli.main import main
from armchair.core.errors import ConfigError, UsageError
from armchair.data.scenes import draw, prompts
from armchair.evaluation.candidates import candidates_curve, plot_candidates
from armchair.evaluation.clip_report import evaluate_clip
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.bundle import CARD, open_bundle
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle1 import DALLE1

RIGHT_AT = 5  # which candidate of each prompt is right


class Draws(DALLE1):
    """Draws blanks, and one picture of each prompt that is right."""

    def generate(self, prompts_: Any, *, count: int = 1, **_: Any) -> Any:
        scenes = {p.text: p.scene for kind in ("seen", "held_out") for p in prompts(kind, 3, 0)}
        blank = np.full((128, 128, 3), 250, np.uint8)
        return [
            Image.fromarray(draw(scenes[text], 128) if k == RIGHT_AT else blank)
            for text in prompts_
            for k in range(count)
        ]


class Likes(CLIP):
    """Likes pictures with something in them."""

    def encode_texts(self, texts: Any, *, truncate: bool = False) -> torch.Tensor:
        return torch.ones(len(texts), 1)

    def encode_pictures(self, pictures: Any) -> torch.Tensor:
        return torch.tensor([[float(np.asarray(picture).std())] for picture in pictures])


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
    assert curve["counts"] == [1, 2, 4, 8, 15]
    for kind in ("seen", "held_out"):
        assert [part["all"] for part in curve[kind]] == [0, 0, 0, 1, 1]
        assert curve[kind][-1]["object"] == 1
        assert curve[kind][0]["prompts"] == 3
    assert told == [(done, 6) for done in range(1, 7)]
    json.dumps(curve)


def test_held_out_pairs_alone_can_be_asked_for(draws: Draws, likes: Likes) -> None:
    curve = candidates_curve(draws, likes, num_prompts=3, candidates=8, kinds=("held_out",))
    assert set(curve) == {"counts", "held_out"}
    assert curve["held_out"][-1]["all"] == 1


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
    assert set(scores["pairs"]) == {"seen", "held_out", "pictures"}
    assert max(scores["pairs"]["seen"], scores["pairs"]["held_out"]) < 0.1
    assert scores["settings"] == {"seed": 1, "truncate": False}
    assert {"commit", "version", "hardware", "date"} <= set(scores)


def test_the_command_measures_a_clip_and_records(
    capsys: pytest.CaptureFixture[str], clip_bundle: Path
) -> None:
    assert main(["evaluate", str(clip_bundle), "--record", "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert open_bundle(clip_bundle).evaluation == scores
    card = (clip_bundle / CARD).read_text()
    assert "| CLIP: picture to caption, recall at 1 / 5 |" in card
    assert "true of no other (seed 0)" in card
    assert open_bundle(clip_bundle).manifest["config"]["vocabulary"] == "own"


@pytest.mark.parametrize(
    "words",
    [
        ["--temperature", "1"],
        ["--candidates", "4"],
        ["--pictures", "sheets"],
        ["--prompts", "8"],
        ["--clip", "clip-scenes"],
    ],
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


def test_pictures_that_are_too_small_are_refused_before_any_is_drawn(likes: Likes) -> None:
    chosen = DiscreteVAEConfig(
        image_size=32, codebook_size=16, codebook_dim=8, width=8, num_groups=3, patch_size=2
    )
    shape = TextToImageConfig(
        text_vocab_size=300, text_length=96, image_vocab_size=16, grid_size=4,
        dim=32, num_layers=1, num_heads=2,
    )  # fmt: skip
    small = DALLE1(likes.tokenizer, DiscreteVAE(chosen), TextToImageTransformer(shape))
    with pytest.raises(ConfigError, match="the model's pictures: got '32 pixels'"):
        candidates_curve(small, likes, num_prompts=1, candidates=1)
