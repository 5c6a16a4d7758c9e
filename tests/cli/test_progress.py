"""What a person sees of a picture that is being drawn."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from PIL import Image

from armchair.cli import progress
from armchair.cli.progress import in_blocks, progress_bar


def test_a_picture_in_blocks_has_two_pixels_in_each() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[0] = (255, 0, 0)
    pixels[1] = (0, 0, 255)
    text = in_blocks(Image.fromarray(pixels))
    assert text.plain == ("▀" * 32 + "\n") * 16
    assert str(text.spans[0].style) == "rgb(255,0,0) on rgb(0,0,255)"
    assert str(text.spans[-1].style) == "rgb(0,0,0) on rgb(0,0,0)"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_forming_picture_is_looked_at_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(progress.console, "_force_terminal", terminal)
    looked: list[int] = []

    def forming() -> list[Image.Image]:
        looked.append(1)
        return [Image.new("RGB", (8, 8))]

    with progress_bar("drawing", "steps") as advance:
        for done in range(3):
            advance(done, 3, forming)
        advance(3, 3)
    assert len(looked) == (1 if terminal else 0)  # not at every step, as looking takes time


@pytest.mark.parametrize("terminal", [True, False])
def test_where_nobody_sees_a_bar_a_line_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr(progress.console, "_force_terminal", terminal)
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with progress_bar("measuring", "prompts") as advance:
        advance(1, 1200)
    assert ("measuring: 1 of 1,200 prompts\n" in capsys.readouterr().err) is not terminal


@pytest.mark.parametrize("started", [True, False])
def test_what_is_refused_before_it_starts_leaves_no_bar(
    monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    bar = progress._bar("steps")
    monkeypatch.setattr(progress, "_bar", lambda unit: bar)
    with contextlib.suppress(ValueError), progress_bar("drawing", "steps") as advance:
        if started:
            advance(1, 3)
        raise ValueError("refused")
    assert bar.live.transient is not started
