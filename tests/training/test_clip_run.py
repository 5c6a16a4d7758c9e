"""Runs of a CLIP of milliseconds, and what they share with those of a DALL·E."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from PIL import Image

from armchair.core.errors import CheckpointError, ConfigError, UnknownNameError, UsageError
from armchair.core.files import sha256
from armchair.core.schedules import Schedule
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.data.sources import DataConfig
from armchair.models.clip import CLIPConfig
from armchair.pipelines import load
from armchair.pipelines.bundle import open_bundle
from armchair.pipelines.clip import CLIP
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.checkpoint import list_checkpoints, load_checkpoint
from armchair.training.clip import CLIPRecipe, CLIPRun
from armchair.training.loop import Interrupted
from armchair.training.objectives.contrastive import ContrastiveLossConfig
from armchair.training.recipe import Stage, with_training

COMMAND = "armchair train toy --out somewhere"


def recipe(**changes: Any) -> CLIPRecipe:
    fields: dict[str, Any] = {
        "name": "toy",
        "data": DataConfig(num_pictures=20, num_validation=4),
        "tokenizer": TokenizerConfig(vocab_size=280, context_length=128, dropout=0.1),
        "clip": shape(),
        "clip_loss": ContrastiveLossConfig(chunk_size=4),
        "clip_training": toys.config(),
        "augment": False,
    }
    return CLIPRecipe(**{**fields, **changes})


def shape(**changes: Any) -> CLIPConfig:
    sizes = {
        "image_size": 32,
        "patch_size": 8,
        "image_dim": 16,
        "image_layers": 1,
        "image_heads": 2,
        "text_vocab_size": 280,
        "text_length": 128,
        "text_dim": 16,
        "text_layers": 1,
        "text_heads": 2,
        "embedding_dim": 8,
    }
    return CLIPConfig(**{**sizes, **changes})


def walk(
    folder: Path,
    chosen: CLIPRecipe | None = None,
    *,
    stage: Stage | None = None,
    recorder: toys.Recorder | None = None,
) -> Path:
    run = CLIPRun(
        chosen or recipe(),
        folder,
        device=torch.device("cpu"),
        observe=lambda *_: recorder or toys.Recorder(),
        message=pytest.fail,
        command=COMMAND,
    )
    return run.run(stage)


def weights(folder: Path) -> str:
    return sha256(folder / "bundle" / "clip.safetensors")


def test_a_run_ends_in_a_bundle_of_what_it_trained(tmp_path: Path) -> None:
    bundle = open_bundle(walk(tmp_path))
    assert bundle.kind == "clip"
    about = bundle.manifest["about"]
    assert about["command"] == COMMAND
    assert about["pictures"] == 20
    assert set(about["made_from"]) == {"tokenizer", "clip"}
    clip = load(str(bundle.path), device="cpu")
    assert isinstance(clip, CLIP)
    state = load_checkpoint(list_checkpoints(tmp_path / "clip" / "checkpoints")[-1]).tensors
    for name, tensor in clip.model.state_dict().items():
        torch.testing.assert_close(tensor, state[f"average/{name}"].half().float())
    before = {path: path.stat().st_mtime_ns for path in bundle.path.iterdir()}
    walk(tmp_path)  # everything is done: nothing changes
    assert {path: path.stat().st_mtime_ns for path in bundle.path.iterdir()} == before


def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    walk(tmp_path / "unbroken")
    stop = toys.Recorder({80: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(Interrupted, match="stopped after 80 of 160 pictures"):
        walk(tmp_path / "broken", recorder=stop)
    torch.rand(7)  # what else draws does not matter
    walk(tmp_path / "broken")
    assert weights(tmp_path / "broken") == weights(tmp_path / "unbroken")


def test_another_seed_trains_another_model(tmp_path: Path) -> None:
    chosen = with_training(recipe(), seed=1)
    assert chosen.clip_training.seed == 1
    walk(tmp_path / "0")
    walk(tmp_path / "1", chosen)
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def test_a_bundle_is_trained_further(tmp_path: Path) -> None:
    theirs = walk(tmp_path / "theirs")
    still = toys.config().optimizer
    still = dataclasses.replace(still, learning_rate=Schedule.of(0.0))
    chosen = recipe(start_from=str(theirs), data=DataConfig(num_pictures=9, num_validation=4))
    made = walk(tmp_path / "still", with_training(chosen, optimizer=still))
    for name in ("clip.safetensors", "tokenizer.json"):
        assert (made / name).read_bytes() == (theirs / name).read_bytes()
    walk(tmp_path / "moved", chosen)
    assert weights(tmp_path / "moved") != weights(tmp_path / "theirs")


def test_validation_scores_captions_and_pictures(tmp_path: Path) -> None:
    recorder = toys.Recorder()
    walk(tmp_path, recorder=recorder)
    for name in ("caption_recall_1", "caption_recall_5", "picture_recall_1", "picture_recall_5"):
        (score,) = recorder.logged("validation", name).values()
        assert 0 <= score <= 1


def test_a_folder_of_pictures_with_random_crops(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = Scenes(ScenesConfig(num_pictures=20, size=48))
    for index in range(20):
        Image.fromarray(scenes.pixels(index)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(scenes.captions(index)[0])
    data = DataConfig(source=f"folder:{folder}")
    bundle = open_bundle(walk(tmp_path / "run", recipe(data=data, augment=True)))
    assert 15 <= bundle.manifest["about"]["pictures"] < 20
    assert "licence" not in bundle.manifest["about"]


def test_stages_come_in_order_and_are_its_own(tmp_path: Path) -> None:
    walk(tmp_path, stage="tokenizer")
    with pytest.raises(UsageError, match=r"the stage clip of .* is not done"):
        walk(tmp_path, stage="bundle")
    with pytest.raises(UnknownNameError, match="stage: got 'codes', expected one of bundle, clip"):
        walk(tmp_path, stage="codes")


def test_a_stage_that_began_otherwise_is_refused(tmp_path: Path) -> None:
    walk(tmp_path)
    with pytest.raises(CheckpointError, match=r"clip\.image_layers"):
        walk(tmp_path, recipe(clip=shape(image_layers=2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": shape(text_vocab_size=281)}, "clip.text_vocab_size: got 281, expected 280"),
        ({"clip": shape(text_length=64)}, "clip.text_length: got 64, expected 128"),
        ({"clip_training": toys.config(accumulation=2)}, "clip_training.accumulation: got 2"),
    ],
)
def test_recipes_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(recipe(), **changes)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from armchair.cli.main import main

    command = ["train", "clip-scenes-tiny", "--out", str(tmp_path / "run"), "--device", "cpu"]
    command += ["--data.num-pictures", "100", "--data.num-validation", "8"]
    command += ["--clip-training.num-images", "256", "--clip.image-layers", "1", "--seed", "3"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert Path(captured.out.strip()) == tmp_path / "run" / "bundle"
    assert "armchair rank" in captured.err
    rows = (tmp_path / "run" / "clip" / "metrics.jsonl").read_text()
    assert "caption_recall_1" in rows
    assert list((tmp_path / "run" / "clip" / "previews").glob("*.png"))
    config = open_bundle(tmp_path / "run" / "bundle").manifest["about"]["recipe"]["config"]
    assert config["clip_training"]["seed"] == 3
    assert main(["plot", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "clip" / "curves.png").exists()
