from __future__ import annotations

import math
from typing import Any

import pytest

from armchair.pipelines.card import model_card, with_scores

LINES = [line for line in model_card("toy", {}, None).splitlines() if line]


def about(source: str, **more: Any) -> dict[str, Any]:
    data = {"source": source, "num_pictures": 60_000}
    config = {"data": data, "transformer_training": {"seed": 7}}
    return {"recipe": {"config": config, "version": "0.1.0", "commit": "abc123"}, **more}


def test_nothing_known_is_a_title_and_the_limits() -> None:
    assert LINES[:3] == ["# toy", "## How it was made", "## Limits"]
    assert len(LINES) == 4
    assert "None" not in model_card("toy", {}, None)


@pytest.mark.parametrize(
    "partial",
    [
        {"recipe": None},
        {"recipe": {}},
        {"recipe": {"config": None}},
        {"recipe": {"config": {"data": {}}}},
        {"description": None, "command": None, "pictures": None, "notes": None, "licence": None},
        {"taken_from": None},
        {"taken_from": {"about": {}}},
    ],
)
def test_what_is_not_known_is_left_out(partial: dict[str, Any], scores: dict[str, Any]) -> None:
    assert model_card("toy", partial, None) == model_card("toy", {}, None)
    assert "## Scores" in model_card("toy", partial, scores)


def test_what_is_known_is_told() -> None:
    known = about(
        "scenes",
        description="A toy.",
        command="armchair train toy",
        pictures=200,
        taken_from={"bundle": "dalle1-scenes"},
        hardware="2 cores",
        date="2026-01-01",
        notes=["Early."],
    )
    lines = model_card("toy", known, None).splitlines()
    assert lines[:4] == ["# toy", "", "A toy.", ""]
    assert [line for line in lines if line.startswith("- ")] == [
        "- command: `armchair train toy`",
        "- commit: abc123, version 0.1.0",
        "- seed: 7",
        "- data: scenes, 200 pictures",
        "- autoencoder: taken from the bundle dalle1-scenes",
        "- hardware: 2 cores",
        "- date: 2026-01-01",
        "- Early.",
    ]


def test_a_version_without_a_commit() -> None:
    assert "- version: 0.1.0\n" in model_card("toy", {"recipe": {"version": "0.1.0"}}, None)


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (about("scenes"), "- data: scenes, 60,000 pictures\n"),
        (about("scenes", pictures=200), "- data: scenes, 200 pictures\n"),
        (about("folder:emoji", pictures=1350), "- data: folder:emoji, 1,350 pictures\n"),
        (about("folder:emoji"), "- data: folder:emoji\n"),  # the recipe's number is of scenes
    ],
)
def test_pictures_are_those_it_was_trained_on(known: dict[str, Any], line: str) -> None:
    assert line in model_card("toy", known, None)


def test_a_licence_stands_where_one_is_known() -> None:
    assert "Licence: Apache-2.0." in model_card("toy", about("scenes"), None)
    assert "Licence: CC0." in model_card("toy", about("folder:emoji", licence="CC0"), None)
    assert "Licence" not in model_card("toy", about("folder:emoji"), None)


def test_scores_come_before_the_limits(scores: dict[str, Any]) -> None:
    card = model_card("toy", about("scenes"), scores)
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == ["# toy", "## How it was made", "## Scores", "## Limits"]
    assert "| reconstruction PSNR | 28.1 dB |" in card
    assert "| all attributes right, seen pairs | **97.5%** (object 99.0%, size 100.0%) |" in card
    assert "(temperature 0.7, top_k None; seed 3)" in card


HAND_EDITED = """# My model

It draws *teapots*. \t

## Scores

old numbers

### By attribute

more old numbers

## Thanks

To my cat.\r
## Limits

None!
"""


def test_new_scores_leave_the_rest_of_a_card_alone(scores: dict[str, Any]) -> None:
    card = with_scores(HAND_EDITED, scores)
    before, _, rest = card.partition("## Scores\n")
    after = rest[rest.index("## Thanks") :]
    assert before == HAND_EDITED[: HAND_EDITED.index("## Scores")]
    assert after == HAND_EDITED[HAND_EDITED.index("## Thanks") :]
    assert "old numbers" not in card
    assert card.count("## Scores") == 1
    assert "28.1 dB" in card


def test_scores_again_change_nothing(scores: dict[str, Any]) -> None:
    for card in (HAND_EDITED, "# toy\n", "# toy\n\n## Limits\n\nMany.\n", "", "Just a line."):
        once = with_scores(card, scores)
        assert with_scores(once, scores) == once
        assert once.endswith("\n")
        assert once.count("## Scores") == 1


def test_a_card_without_limits_gets_scores_at_its_end(scores: dict[str, Any]) -> None:
    card = with_scores("# toy\n\nA toy.\n", scores)
    assert card.startswith("# toy\n\nA toy.\n\n## Scores\n\n| what | score |\n")
    assert card.endswith("by `armchair evaluate`.\n")


def test_scores_that_are_not_finite_are_shown_as_they_are(scores: dict[str, Any]) -> None:
    scores["bits"]["true_elbo"] = math.inf
    assert "| true ELBO | inf bits a dimension |" in with_scores("# toy\n", scores)


def test_the_seed_of_a_clip_is_told() -> None:
    known = {"recipe": {"config": {"clip_training": {"seed": 5}}}}
    assert "- seed: 5\n" in model_card("toy", known, None)
