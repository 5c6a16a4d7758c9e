"""What `armchair evaluate` writes, of scores that are given."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armchair.cli.main import main
from armchair.evaluation.report import Evaluation
from armchair.pipelines.bundle import CARD, open_bundle


@pytest.fixture
def evaluate(
    monkeypatch: pytest.MonkeyPatch, scores: dict[str, Any], tiny_bundle: Path
) -> Callable[..., int]:
    """The command, but for the measuring."""

    def measured(*_: Any, **__: Any) -> Evaluation:
        return Evaluation(scores, {})

    monkeypatch.setattr("armchair.evaluation.report.evaluate", measured)
    return lambda *words: main(["evaluate", str(tiny_bundle), "--device", "cpu", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "."], "cannot write .: it is a folder"),
        (["--prompts", "0"], "prompts: got 0, expected 1 to 100,000"),
        (["--scenes", "99999999999"], "scenes: got 99999999999, expected 1 to 100,000"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    evaluate: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert evaluate(*words) != 0
    printed = capsys.readouterr()
    assert message in printed.err
    assert "hint:" in printed.err
    assert not printed.out


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    evaluate: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert evaluate("--candidates", "2", "--pictures", str(tmp_path)) == 2
    printed = capsys.readouterr()
    assert "pip install 'armchair[plots]'" in printed.err
    assert not printed.out


def strictly(text: str) -> Any:
    """JSON without the words that only Python knows."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_only_the_scores_of_a_card_are_replaced(
    evaluate: Callable[..., int], tiny_bundle: Path
) -> None:
    card = tiny_bundle / CARD
    card.write_text("# My own\n\nWords.\n\n## Scores\n\nold\n\n## Thanks\n\nTo all.\n", "utf-8")
    assert evaluate("--record", "--temperature", "0.5") == 0
    text = card.read_text("utf-8")
    assert text.startswith("# My own\n\nWords.\n\n## Scores\n\n| what | score |\n")
    assert text.endswith("\n\n## Thanks\n\nTo all.\n")
    assert "old" not in text
    bundle = open_bundle(tiny_bundle)
    assert bundle.evaluation is not None
    assert bundle.manifest["config"]["sampling"]["temperature"] == 0.5


def test_a_card_that_cannot_be_read_is_found_before_the_work(
    evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str], tiny_bundle: Path
) -> None:
    (tiny_bundle / CARD).write_bytes(b"\xff\xfe")
    assert evaluate("--record") == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "hint: save it as UTF-8" in printed.err


def test_scores_that_are_not_finite_are_null(
    evaluate: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    scores: dict[str, Any],
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    scores["reconstruction"]["psnr_db"] = math.inf
    scores["bits"]["validation"] = math.nan
    assert evaluate("--record", "--json", str(tmp_path / "scores.json")) == 0
    written = strictly((tmp_path / "scores.json").read_text("utf-8"))
    assert written == strictly(capsys.readouterr().out) == open_bundle(tiny_bundle).evaluation
    assert written["reconstruction"] == {"psnr_db": None, "reader_accuracy": 0.99}
    assert written["bits"] == {"validation": None, "true_elbo": 6.2}
