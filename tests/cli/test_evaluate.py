"""What `armchair evaluate` writes, of scores that are given."""

from __future__ import annotations

import json
import math
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
