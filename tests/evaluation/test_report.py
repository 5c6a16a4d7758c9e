from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from armchair.cli.main import main
from armchair.models.sequence.text_to_image import TextToImageTransformer
from armchair.pipelines.dalle1 import DALLE1
from armchair.text.tokenizer import Tokenizer, TokenizerConfig


def test_captions_too_long_for_a_model_are_cut_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tiny_model: DALLE1, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=300, context_length=16), [])
    shape = dataclasses.replace(tiny_model.transformer.config, text_length=16)
    transformer = TextToImageTransformer(shape).eval()
    short = DALLE1(tokenizer, tiny_model.autoencoder, transformer)
    short.save(tmp_path / "short", about={}, card="# short\n")
    command = ["evaluate", str(tmp_path / "short"), "--prompts", "2", "--scenes", "2"]
    command += ["--device", "cpu"]
    assert main(command) == 2
    assert "--truncate" in capsys.readouterr().err
    assert main([*command, "--truncate"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["settings"]["truncate"] is True
    assert scores["relations"]["prompts"] == 2
