"""Runs of a recipe of milliseconds: stopped, gone on with, tampered with, and fed other things."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from PIL import Image
from safetensors.torch import load_file
from toy_recipes import dalle1_recipe as recipe
from toy_recipes import transformer

from armchair.core.config import to_dict
from armchair.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    UnknownNameError,
    UsageError,
)
from armchair.core.files import sha256
from armchair.core.schedules import Schedule
from armchair.data import shards
from armchair.data.code_store import CodeStore
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.data.sources import DataConfig
from armchair.models.autoencoders.convolutional import AutoencoderConfig
from armchair.pipelines import load
from armchair.pipelines.bundle import EVALUATION, MANIFEST, open_bundle
from armchair.pipelines.bundle_search import SHIPPED
from armchair.pipelines.dalle1 import DALLE1, SamplingSettings
from armchair.text.tokenizer import TokenizerConfig
from armchair.training import dalle1
from armchair.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from armchair.training.dalle1 import DALLE1Recipe, DALLE1Run
from armchair.training.examples import CaptionedCodes, view
from armchair.training.loop import Interrupted
from armchair.training.objectives.text_to_image import TextToImageLossConfig
from armchair.training.recipe import Stage, with_training

NUM_IMAGES = toys.config().num_images
COMMAND = "armchair train toy --out somewhere"


@pytest.fixture(autouse=True, scope="module")
def _small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_SIZE", 8)
        yield


class Watch:
    """What a run tells: its observers by stage, each with something to do, and its messages."""

    def __init__(self, at: dict[Stage, dict[int, Callable[[], None]]] | None = None) -> None:
        self.at = at or {}
        self.observers: dict[Stage, list[toys.Recorder]] = defaultdict(list)
        self.messages: list[str] = []

    def observe(self, stage: Stage, folder: Path) -> toys.Recorder:
        self.observers[stage].append(toys.Recorder(self.at.get(stage)))
        return self.observers[stage][-1]


def walk(
    folder: Path,
    chosen: DALLE1Recipe | None = None,
    *,
    watch: Watch | None = None,
    stage: Stage | None = None,
) -> Path:
    watch = watch or Watch()
    run = DALLE1Run(
        chosen or recipe(),
        folder,
        device=torch.device("cpu"),
        observe=watch.observe,
        message=watch.messages.append,
        command=COMMAND,
    )
    return run.run(stage)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watch]:
    """A whole run, to read, and what it told."""
    folder, watch = tmp_path_factory.mktemp("unbroken"), Watch()
    walk(folder, watch=watch)
    return folder, watch


@pytest.fixture
def finished(unbroken: tuple[Path, Watch], tmp_path: Path) -> Path:
    """A whole run, to tamper with."""
    return Path(shutil.copytree(unbroken[0], tmp_path / "run"))


def state(folder: Path, stage: Stage) -> Path:
    return list_checkpoints(folder / stage / "checkpoints")[-1] / "state.safetensors"


def fingerprints(folder: Path) -> dict[str, str]:
    """Of both stages' parameters, averages and optimizers, and of what is drawn with."""
    paths = [state(folder, "autoencoder"), state(folder, "transformer")]
    paths += [folder / "bundle" / "tokenizer.json", *(folder / "bundle").glob("*.safetensors")]
    return {str(path.relative_to(folder)): sha256(path) for path in paths}


def about_bundle(folder: Path) -> dict[str, Any]:
    return open_bundle(folder / "bundle").manifest["about"]


# Stopping and going on


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "at", "how", "message"),
    [
        ("autoencoder", 80, press, "stopped after 80 of 160 pictures"),
        ("codes", 8, interrupt, "stopped in the stage codes"),
        ("transformer", 80, press, "stopped after 80 of 160 pictures"),
    ],
)
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(
    tmp_path: Path,
    unbroken: tuple[Path, Watch],
    stage: Stage,
    at: int,
    how: Callable[[], None],
    message: str,
) -> None:
    stopped = Watch({stage: {at: how}})
    with pytest.raises(Interrupted, match=message) as caught:
        walk(tmp_path, watch=stopped)
    assert "run the same command again" in str(caught.value)
    assert caught.value.exit_code == 130
    assert [observer.stops for observer in stopped.observers[stage]] == [1]
    assert not (tmp_path / "bundle").exists()
    torch.rand(7)  # what else draws does not matter
    walk(tmp_path)
    assert fingerprints(tmp_path) == fingerprints(unbroken[0])


def test_a_stage_has_one_observer(unbroken: tuple[Path, Watch]) -> None:
    watch = unbroken[1]
    assert {stage: len(observers) for stage, observers in watch.observers.items()} == {
        "tokenizer": 1,
        "autoencoder": 1,
        "codes": 1,
        "transformer": 1,
    }
    for [observer] in watch.observers.values():
        assert len(observer.starts) == observer.stops == 1
    assert watch.messages == []
    [reading] = watch.observers["tokenizer"]  # of the captions, to learn merges and to check
    count = recipe().data.num_pictures
    assert reading.starts == [(0, count)]
    assert reading.advanced == [step // 2 for step in range(1, 2 * count + 1)]


def test_a_damaged_checkpoint_is_told_without_an_observer(finished: Path) -> None:
    whole = state(finished, "autoencoder").parent
    shutil.copytree(whole, whole.with_name("000000000999"))
    (whole.with_name("000000000999") / "state.safetensors").write_bytes(b"")
    watch = Watch()
    walk(finished, watch=watch, stage="bundle")
    assert len(watch.messages) == 1
    assert "000000000999" in watch.messages[0]
    assert not watch.observers


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    holder = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, tmp_path / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"another process is at work in {tmp_path}") as caught:
            walk(tmp_path, stage="tokenizer")
        assert "--out" in str(caught.value)
        assert not (tmp_path / "recipe.json").exists()
        other.stdin.close()
        other.wait()
    walk(tmp_path, stage="tokenizer")


def without_field(folder: Path, stage: str) -> None:
    """As if the run had begun before optimizers could share out the parameters."""
    path = folder / "recipe.json"
    begun = json.loads(path.read_text())
    for name in ("autoencoder", "codes", "transformer", "bundle"):
        begun[name].get(f"{stage}_training", {"optimizer": {}})["optimizer"].pop(
            "hidden_matrices", None
        )
    path.write_text(json.dumps(begun))
    for checkpoint in list_checkpoints(folder / stage / "checkpoints"):
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        del manifest["config"][f"{stage}_training"]["optimizer"]["hidden_matrices"]
        manifest["format"] = 1  # which had no checksum of its own
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_a_field_that_recipes_did_not_have_then_has_its_default(finished: Path) -> None:
    without_field(finished, "autoencoder")
    walk(finished)
    without_field(finished, "transformer")
    with pytest.raises(CheckpointError, match="hidden_matrices: got 'muon', expected 'adamw'"):
        walk(finished)


def test_a_stage_that_left_nothing_may_begin_under_other_settings(finished: Path) -> None:
    other = recipe(transformer_loss=TextToImageLossConfig(text_weight=0.5))
    with pytest.raises(CheckpointError, match="began under other settings") as caught:
        walk(finished, other, stage="transformer")
    assert f"remove {finished / 'transformer'}" in str(caught.value)
    before = about_bundle(finished)["made_from"]
    shutil.rmtree(finished / "transformer")
    shutil.rmtree(finished / "bundle")
    walk(finished, other)
    assert about_bundle(finished)["made_from"]["autoencoder"] == before["autoencoder"]
    assert about_bundle(finished)["made_from"]["transformer"] != before["transformer"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"autoencoder": 3}'])
def test_damaged_notes_of_a_run_are_named(finished: Path, content: str) -> None:
    (finished / "recipe.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"recipe\.json is damaged"):
        walk(finished)
    (finished / "recipe.json").unlink()
    walk(finished)


# The bundle


def test_the_bundle_says_where_it_comes_from(unbroken: tuple[Path, Watch]) -> None:
    folder = unbroken[0]
    about = about_bundle(folder)
    assert about["command"] == COMMAND
    assert about["pictures"] == 20
    assert about["licence"] == "Apache-2.0"
    assert about["made_from"] == {
        "tokenizer": sha256(folder / "tokenizer.json"),
        "autoencoder": sha256(state(folder, "autoencoder")),
        "transformer": sha256(state(folder, "transformer")),
    }
    assert "taken_from" not in about


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "bundle" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_finished_run_keeps_its_bundle_and_scores(finished: Path) -> None:
    bundle = open_bundle(finished / "bundle")
    scores = bundle.path / EVALUATION
    scores.write_text('{"seen": {"all": 1.0}}\n')
    entry = {"bytes": scores.stat().st_size, "sha256": sha256(scores)}
    sampling = to_dict(SamplingSettings(temperature=0.5))
    rewrite_manifest(
        finished,
        files={**bundle.manifest["files"], EVALUATION: entry},
        config={**bundle.manifest["config"], "sampling": sampling},
    )
    (bundle.path / "README.md").write_text("# mine\n")
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    assert walk(finished) == bundle.path
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before
    assert load(str(bundle.path), device="cpu").sampling.temperature == 0.5
    assert open_bundle(bundle.path).evaluation == {"seen": {"all": 1.0}}


def test_a_bundle_that_is_not_of_this_run_or_not_whole_is_made_anew(finished: Path) -> None:
    made_from = about_bundle(finished)["made_from"]
    other = {**made_from, "transformer": "0" * 64}
    rewrite_manifest(finished, about={**about_bundle(finished), "made_from": other})
    walk(finished)
    assert about_bundle(finished)["made_from"] == made_from
    (finished / "bundle" / "transformer.safetensors").unlink()
    walk(finished)
    assert about_bundle(finished)["made_from"] == made_from


# Codes and their autoencoder


def replace_autoencoder(folder: Path) -> None:
    """Put another one of the same shape in its place."""
    path = state(folder, "autoencoder").parent
    held = load_checkpoint(path)
    about = {key: value for key, value in held.about.items() if key not in ("format", "sha256")}
    tensors = {name: tensor + 0.01 for name, tensor in held.tensors.items()}
    save_checkpoint(path.parent, int(path.name), Checkpoint(tensors, about), keep=1)


def test_what_another_autoencoder_has_left_is_refused(finished: Path) -> None:
    replace_autoencoder(finished)
    with pytest.raises(DataError, match="made by another model") as caught:
        walk(finished)
    assert "remove this folder" in str(caught.value)
    with pytest.raises(CheckpointError, match="codes was made with another autoencoder"):
        walk(finished, stage="transformer")
    shutil.rmtree(finished / "codes")
    for stage in (None, "transformer", "bundle"):
        with pytest.raises(CheckpointError, match="transformer was made with another autoenc"):
            walk(finished, stage=stage)
    shutil.rmtree(finished / "transformer")
    walk(finished)
    now = sha256(state(finished, "autoencoder"))
    assert CodeStore(finished / "codes").about["autoencoder"] == now
    assert about_bundle(finished)["made_from"]["autoencoder"] == now


def test_codes_and_checkpoints_that_do_not_name_their_autoencoder_are_taken(finished: Path) -> None:
    notes = finished / "codes" / "about.json", state(finished, "transformer").with_name(MANIFEST)
    for note in notes:
        content = json.loads(note.read_text())
        del content["autoencoder"]
        if "format" in content:
            content["format"] = 1  # which had no checksum of its own
        note.write_text(json.dumps(content))
    before = fingerprints(finished)
    shutil.rmtree(finished / "bundle")
    walk(finished)
    assert fingerprints(finished) == before


# Other pictures, another's autoencoder, long captions


def test_a_folder_of_pictures_with_two_views(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = Scenes(ScenesConfig(num_pictures=20, size=48))
    for index in range(20):
        Image.fromarray(scenes.pixels(index)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text("\n".join(scenes.captions(index)[:2]))
    data = DataConfig(source=f"folder:{folder}", views=2)
    walk(tmp_path / "run", recipe(data=data, augment=True))
    about = about_bundle(tmp_path / "run")
    count = about["pictures"]
    assert 15 <= count < 20  # some are kept for validation
    assert "licence" not in about  # nobody here knows the pictures'
    codes = CodeStore(tmp_path / "run" / "codes")
    assert len(codes) == 2 * count
    for index in range(count):
        assert codes.captions(index) == codes.captions(count + index)
        assert len(codes.captions(index)) == 2


def test_the_first_view_is_the_centre_and_the_rest_are_random() -> None:
    scenes = Scenes(ScenesConfig(num_pictures=3, size=48))
    views = [view(scenes, 1 + 3 * v, size=32, seed=0) for v in range(8)]
    assert {pixels.shape for pixels in views} == {(32, 32, 3)}
    assert np.array_equal(views[0], view(scenes, 1, size=32, seed=5))
    assert len({pixels.tobytes() for pixels in views}) >= 4  # some crops are alike
    assert np.array_equal(views[5], view(scenes, 16, size=32, seed=0))


def taking(bundle: Path, shape: AutoencoderConfig) -> DALLE1Recipe:
    return recipe(
        autoencoder=shape,
        autoencoder_from=str(bundle),
        transformer=transformer(128, codebook_size=16),
    )


def test_an_autoencoder_is_taken_from_a_bundle_once(
    tmp_path: Path, tiny_bundle: Path, tiny_model: DALLE1
) -> None:
    chosen = taking(tiny_bundle, tiny_model.autoencoder.config)
    made = walk(tmp_path / "run", chosen)
    theirs = (tiny_bundle / "autoencoder.safetensors").read_bytes()
    assert (made / "autoencoder.safetensors").read_bytes() == theirs
    taken = about_bundle(tmp_path / "run")["taken_from"]
    assert taken["bundle"] == "tiny"
    assert taken["about"]["description"] == "An untrained toy."
    shutil.rmtree(tiny_bundle)
    assert walk(tmp_path / "run", chosen) == made


def test_an_autoencoder_of_another_shape_is_not_taken(
    tmp_path: Path, tiny_bundle: Path, tiny_model: DALLE1
) -> None:
    wider = dataclasses.replace(tiny_model.autoencoder.config, width=16)
    expected = "autoencoder.width: got 16, expected 8, as in the bundle tiny"
    with pytest.raises(ConfigError, match=expected):
        walk(tmp_path / "run", taking(tiny_bundle, wider))
    assert not (tmp_path / "run" / "tokenizer.json").exists()  # before any work was done
    with pytest.raises(UnknownNameError, match="autoencoder_from: got 'nothing'"):
        walk(tmp_path / "other", taking(Path("nothing"), wider))
    assert not (tmp_path / "other" / "recipe.json").exists()


def test_the_first_wordings_are_learnt_first(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wordings` is a function of progress, not of pictures."""
    shares: list[float] = []

    class Spied(CaptionedCodes):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            shares.extend(self.wordings.share(position) for position in range(NUM_IMAGES))

    monkeypatch.setattr(dalle1, "CaptionedCodes", Spied)
    walk(finished, stage="transformer")
    assert shares == [0.5] * (NUM_IMAGES // 2) + [1.0] * (NUM_IMAGES // 2)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_of_wordings_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="wordings"):
        recipe(wordings=Schedule.of(share))


def test_pictures_that_changed_since_a_stage_began_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = Scenes(ScenesConfig(num_pictures=21, size=48))

    def add(index: int) -> None:
        Image.fromarray(scenes.pixels(index)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text("\n".join(scenes.captions(index)[:2]))

    for index in range(20):
        add(index)
    chosen = recipe(data=DataConfig(source=f"folder:{folder}"))
    run = tmp_path / "run"
    walk(run, chosen, stage="tokenizer")
    with pytest.raises(Interrupted):
        walk(run, chosen, watch=Watch({"autoencoder": {80: press}}), stage="autoencoder")
    add(20)
    with pytest.raises(CheckpointError, match="a run on other pictures or captions"):
        walk(run, chosen)
    for suffix in (".png", ".txt"):
        (folder / f"20{suffix}").unlink()
    walk(run, chosen)


def test_captions_that_are_too_long_are_refused(tmp_path: Path) -> None:
    expected = "160 of 160 captions \\(100.0%\\) are longer than 8 tokens; the longest has"
    with pytest.raises(DataError, match=expected) as caught:
        walk(tmp_path, short_text())
    assert "--truncate" in str(caught.value)
    assert not (tmp_path / "tokenizer.json").exists()
    walk(tmp_path, short_text(truncate=True), stage="tokenizer")


def short_text(**changes: Any) -> DALLE1Recipe:
    return recipe(
        tokenizer=TokenizerConfig(vocab_size=280, context_length=8, dropout=0.1),
        transformer=transformer(8, codebook_size=8),
        **changes,
    )


def test_captions_that_are_cut_are_counted(tmp_path: Path) -> None:
    short = short_text(truncate=True)
    watch = Watch()
    walk(tmp_path, short, watch=watch, stage="tokenizer")
    [message] = watch.messages
    assert message.startswith(
        "tokenizer: 160 of 160 captions (100.0%) are longer than 8 tokens and are cut; the longest"
    )


def test_a_bundle_is_trained_further(unbroken: tuple[Path, Watch], tmp_path: Path) -> None:
    theirs = unbroken[0] / "bundle"
    still = dataclasses.replace(toys.config().optimizer, learning_rate=Schedule.of(0.0))
    made = walk(tmp_path / "run", with_training(recipe(start_from=str(theirs)), optimizer=still))
    assert about_bundle(tmp_path / "run")["started_from"] == "bundle"
    assert (made / "tokenizer.json").read_bytes() == (theirs / "tokenizer.json").read_bytes()
    for name in ("autoencoder.safetensors", "transformer.safetensors"):
        found, expected = load_file(made / name), load_file(theirs / name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():  # as numbers: an update by nothing makes 0 of -0
            assert torch.equal(found[key], tensor), key
    other = recipe(start_from=str(SHIPPED / "clip-scenes"))
    with pytest.raises(ConfigError, match="got 'clip-scenes, of clip', expected"):
        walk(tmp_path / "other", other)
