from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from armchair.core.errors import UsageError
from armchair.pipelines.dalle1 import DALLE1

PROMPT = "an armchair in the shape of an avocado"


def _same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_pictures_have_the_size_of_the_model_and_know_how_they_were_drawn(
    tiny_model: DALLE1,
) -> None:
    pictures = tiny_model.generate(PROMPT, count=2, seed=5, temperature=0.5)
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
    assert pictures[1].info["prompt"] == PROMPT
    assert pictures[1].info["seed"] == "5"
    assert pictures[1].info["index"] == "1"
    assert pictures[1].info["temperature"] == "0.5"


def test_picture_k_of_a_seed_is_the_same_whatever_the_batch(tiny_model: DALLE1) -> None:
    five = tiny_model.generate(PROMPT, count=5, seed=3)
    assert _same(tiny_model.generate(PROMPT, count=1, seed=3)[0], five[0])
    for picture, again in zip(
        five, tiny_model.generate(PROMPT, count=5, seed=3, batch_size=2), strict=True
    ):
        assert _same(picture, again)
    among_others = tiny_model.generate(["a kiwi clock", PROMPT], count=5, seed=3)
    assert all(_same(a, b) for a, b in zip(five, among_others[5:], strict=True))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_weights_of_fewer_bits_draw_too(tiny_model: DALLE1, precision: str) -> None:
    (picture,) = tiny_model.generate(PROMPT, seed=3, precision=precision)
    assert picture.info["precision"] == precision
    assert _same(tiny_model.generate(PROMPT, count=3, seed=3, precision=precision)[0], picture)


def test_another_seed_draws_another_picture(tiny_model: DALLE1) -> None:
    one, other = (tiny_model.generate(PROMPT, seed=seed)[0] for seed in (0, 1))
    assert not _same(one, other)


def test_progress_reaches_the_total(tiny_model: DALLE1) -> None:
    told: list[tuple[int, int]] = []
    tiny_model.generate(
        PROMPT, count=3, batch_size=2, on_progress=lambda done, total, _: told.append((done, total))
    )
    assert told == sorted(told)
    assert told[-1] == (48, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": ""}, "caption"),
        ({"prompts": []}, "prompts"),
        ({"prompts": "avocado " * 500}, "tokens of the caption"),
        ({"count": 0}, "count: got 0"),
        ({"count": -3}, "count: got -3"),
        ({"count": 10**9}, "count"),
        ({"batch_size": 0}, "batch_size"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"precision": "int4"}, "precision"),
        ({"tempature": 1.0}, "tempature"),
    ],
)
def test_bad_requests_are_refused_by_name(
    tiny_model: DALLE1, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_model.generate(**{"prompts": PROMPT, **arguments})


def test_a_long_prompt_is_cut_where_asked_for(tiny_model: DALLE1) -> None:
    assert len(tiny_model.generate("avocado " * 500, truncate=True)) == 1
