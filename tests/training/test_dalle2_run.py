"""Runs of a DALL·E 2 of milliseconds, and of what is left of one without some parts."""

from __future__ import annotations

import dataclasses
import shutil
import signal
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

from armchair.core.errors import CheckpointError, ConfigError, UnknownNameError, UsageError
from armchair.core.files import sha256
from armchair.core.schedules import Schedule
from armchair.data import shards
from armchair.data.embedding_store import EmbeddingStore
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.data.sources import DataConfig
from armchair.diffusion.process import ProcessConfig
from armchair.models.clip import CLIPConfig
from armchair.models.priors.autoregressive import AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.priors.one_step import OneStepPriorConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNetConfig
from armchair.pipelines import load
from armchair.pipelines.bundle import open_bundle
from armchair.pipelines.bundle_search import SHIPPED
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle2 import DALLE2
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from armchair.training.dalle2 import DALLE2Run
from armchair.training.dalle2_recipe import DALLE2Recipe
from armchair.training.loop import Interrupted
from armchair.training.objectives.contrastive import ContrastiveLossConfig
from armchair.training.objectives.diffusion import DiffusionLossConfig
from armchair.training.objectives.prior import OneStepPriorLossConfig, PriorLossConfig
from armchair.training.recipe import Stage, with_training
from armchair.training.start import Start

COMMAND = "armchair train toy --out somewhere"
TRAINING = toys.config(num_images=32)  # four updates
TEXT = TextStreamConfig(vocab_size=280, text_length=128, dim=16, num_layers=1, num_heads=2)
STAGES: tuple[Stage, ...] = ("clip", "prior", "decoder", "first_upsampler", "second_upsampler")


@pytest.fixture(autouse=True, scope="module")
def _small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_SIZE", 8)
        yield


def clip(**changes: Any) -> CLIPConfig:
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


def unet(size: int, **changes: Any) -> UNetConfig:
    sizes: dict[str, Any] = {
        "image_size": size,
        "channels": 8,
        "multipliers": (1, 2),
        "num_blocks": 1,
        "process": ProcessConfig(num_timesteps=20, parameterisation="v"),
    }
    return UNetConfig(**{**sizes, **changes})


DECODER = unet(8, attention_sizes=(4,), head_dim=8, text=TEXT, embedding_dim=8)
PRIOR = DiffusionPriorConfig(
    stream=TEXT,
    embedding_dim=8,
    process=ProcessConfig(num_timesteps=20, parameterisation="x_0"),
    scaling="whiten",
)


def recipe(**changes: Any) -> DALLE2Recipe:
    """Twenty pictures, and four updates of each of five models."""
    fields: dict[str, Any] = {
        "name": "toy",
        "data": DataConfig(num_pictures=20, num_validation=4),
        "tokenizer": TokenizerConfig(vocab_size=280, context_length=128, dropout=0.1),
        "clip": clip(),
        "clip_loss": ContrastiveLossConfig(),
        "clip_training": TRAINING,
        "prior": PRIOR,
        "prior_loss": PriorLossConfig(),
        "prior_training": TRAINING,
        "decoder": DECODER,
        "decoder_loss": DiffusionLossConfig(),
        "decoder_training": TRAINING,
        "first_upsampler": unet(16, low_size=8),
        "first_upsampler_loss": DiffusionLossConfig(crop_size=8, degradation="blur"),
        "first_upsampler_training": TRAINING,
        "second_upsampler": unet(32, low_size=16),
        "second_upsampler_loss": DiffusionLossConfig(crop_size=8, degradation="bsr"),
        "second_upsampler_training": TRAINING,
        "sampling": DALLE2SamplingConfig(
            prior_steps=2,
            decoder_steps=2,
            guidance_scale=2.0,
            first_upsampler_steps=2,
            second_upsampler_steps=2,
        ),
    }
    return DALLE2Recipe(**{**fields, **changes})


def without(*parts: str) -> dict[str, None]:
    return {f"{part}{rest}": None for part in parts for rest in ("", "_loss", "_training")}


def glide(**changes: Any) -> DALLE2Recipe:
    fields: dict[str, Any] = without("clip", "prior", "second_upsampler")
    fields["decoder"] = dataclasses.replace(DECODER, embedding_dim=None)
    return recipe(**{**fields, **changes})


def ddpm() -> DALLE2Recipe:
    return recipe(
        **without("clip", "prior", "first_upsampler", "second_upsampler"),
        tokenizer=None,
        decoder=unet(8),
        sampling=DALLE2SamplingConfig(decoder_steps=2),
    )


class Watch:
    """What a run tells: its observers by stage, each with something to do."""

    def __init__(self, at: dict[Stage, dict[int, Callable[[], None]]] | None = None) -> None:
        self.at = at or {}
        self.observers: dict[Stage, list[toys.Recorder]] = defaultdict(list)

    def observe(self, stage: Stage, folder: Path) -> toys.Recorder:
        self.observers[stage].append(toys.Recorder(self.at.get(stage)))
        return self.observers[stage][-1]


def walk(
    folder: Path,
    chosen: DALLE2Recipe | None = None,
    *,
    watch: Watch | None = None,
    stage: Stage | None = None,
) -> Path:
    run = DALLE2Run(
        chosen or recipe(),
        folder,
        device=torch.device("cpu"),
        observe=(watch or Watch()).observe,
        message=pytest.fail,
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
    """Of all that was trained, embedded, and drawn with."""
    paths = [state(folder, stage) for stage in STAGES]
    paths += [*(folder / "bundle").glob("*.safetensors"), *(folder / "embeddings").glob("*.npy")]
    return {str(path.relative_to(folder)): sha256(path) for path in paths}


# The whole


def test_a_run_ends_in_a_bundle_of_what_it_trained(unbroken: tuple[Path, Watch]) -> None:
    folder = unbroken[0]
    bundle = open_bundle(folder / "bundle")
    assert bundle.kind == "dalle2"
    about = bundle.manifest["about"]
    assert about["command"] == COMMAND
    assert about["made_from"] == {
        "tokenizer": sha256(folder / "tokenizer.json"),
        **{stage: sha256(state(folder, stage)) for stage in STAGES},
    }
    model = load(str(bundle.path), device="cpu")
    assert isinstance(model, DALLE2)
    assert model.image_size == 32
    assert model.sampling == recipe().sampling
    for stage, part in zip(STAGES[2:], [model.decoder, *model.upsamplers], strict=True):
        held = load_checkpoint(state(folder, stage).parent).tensors
        for name, tensor in part.state_dict().items():
            torch.testing.assert_close(tensor, held[f"average/{name}"].half().float())
    assert model.generate("a kiwi mug")[0].size == (32, 32)


def test_every_stage_is_observed_once_and_shows_what_it_can_do(
    unbroken: tuple[Path, Watch],
) -> None:
    observers = unbroken[1].observers
    assert list(observers) == ["tokenizer", "clip", "embeddings", "prior", *STAGES[2:]]
    assert {len(recorders) for recorders in observers.values()} == {1}
    for stage in STAGES:
        assert observers[stage][0].previews == [32]
    assert observers["embeddings"][0].advanced == [8, 16, 20]
    assert observers["prior"][0].logged("validation", "cosine")


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_run_that_is_stopped_in_every_stage_ends_where_an_unbroken_one_does(
    tmp_path: Path, unbroken: tuple[Path, Watch]
) -> None:
    for stage in ("clip", "embeddings", "prior", *STAGES[2:]):
        at = {8: interrupt} if stage == "embeddings" else {16: press}
        with pytest.raises(Interrupted, match=r"stopped (after 16|in the stage embeddings)"):
            walk(tmp_path, watch=Watch({stage: at}))
        torch.rand(7)  # what else draws does not matter
    assert not (tmp_path / "bundle").exists()
    walk(tmp_path)
    assert fingerprints(tmp_path) == fingerprints(unbroken[0])


def test_a_finished_run_is_left_as_it_is(finished: Path) -> None:
    before = {path: path.read_bytes() for path in (finished / "bundle").iterdir()}
    walk(finished)
    assert {path: path.read_bytes() for path in (finished / "bundle").iterdir()} == before


def test_another_seed_trains_another_model(tmp_path: Path, unbroken: tuple[Path, Watch]) -> None:
    walk(tmp_path, with_training(recipe(), seed=1))
    ours, theirs = fingerprints(tmp_path), fingerprints(unbroken[0])
    assert all(ours[name] != theirs[name] for name in ours)


def test_each_picture_and_caption_is_embedded_once_by_the_runs_clip(
    unbroken: tuple[Path, Watch],
) -> None:
    folder = unbroken[0]
    store = EmbeddingStore(folder / "embeddings")
    assert len(store) == 20
    model = load(str(folder / "bundle"), device="cpu").clip
    scenes = Scenes(ScenesConfig(num_pictures=20, size=32))
    for index in (0, 13):
        assert store.captions(index) == scenes.captions(index)
        picture = Image.fromarray(scenes.pixels(index))
        own = model.encode_pictures([picture])[0].numpy()
        np.testing.assert_allclose(store.image(index), own, atol=0.01)
        texts = model.encode_texts(scenes.captions(index), truncate=True).numpy()
        np.testing.assert_allclose(store.texts(index), texts, atol=0.01)


# Parts that are left out, or of another kind


def test_a_glide_has_no_clip_and_no_prior(tmp_path: Path) -> None:
    watch = Watch()
    made = walk(tmp_path, glide(), watch=watch)
    assert list(watch.observers) == ["tokenizer", "decoder", "first_upsampler"]
    model = load(str(made), device="cpu")
    assert model.clip is None
    assert model.generate("a kiwi mug")[0].size == (16, 16)
    with pytest.raises(UnknownNameError, match="stage: got 'prior', expected one of bundle, dec"):
        walk(tmp_path, glide(), stage="prior")


def test_a_ddpm_reads_no_captions(tmp_path: Path) -> None:
    made = walk(tmp_path, ddpm())
    assert not (tmp_path / "tokenizer.json").exists()
    assert set(open_bundle(made).manifest["about"]["made_from"]) == {"decoder"}
    assert load(str(made), device="cpu").generate()[0].size == (8, 8)


@pytest.mark.parametrize(
    ("prior", "loss"),
    [
        (
            AutoregressivePriorConfig(
                stream=TEXT, embedding_dim=8, num_components=8, num_buckets=16
            ),
            PriorLossConfig(),
        ),
        (OneStepPriorConfig(stream=TEXT, embedding_dim=8), OneStepPriorLossConfig()),
    ],
)
def test_priors_of_other_kinds_are_trained(tmp_path: Path, prior: Any, loss: Any) -> None:
    chosen = recipe(**without("first_upsampler", "second_upsampler"), prior=prior, prior_loss=loss)
    made = walk(tmp_path, chosen)
    assert load(str(made), device="cpu").generate("a kiwi mug")[0].size == (8, 8)


def test_a_prior_that_draws_with_the_best_variance_has_measured_it(tmp_path: Path) -> None:
    sampling = DALLE2SamplingConfig(prior_steps=4, prior_sampler="analytic_dpm", decoder_steps=2)
    chosen = recipe(**without("first_upsampler", "second_upsampler"), sampling=sampling)
    model = load(str(walk(tmp_path, chosen)), device="cpu")
    assert isinstance(model.prior, DiffusionPrior)
    assert int((model.prior.mean_squared_errors >= 0).sum()) == 4


def test_two_views_of_a_folder_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = Scenes(ScenesConfig(num_pictures=20, size=48))
    for index in range(20):
        Image.fromarray(scenes.pixels(index)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text("\n".join(scenes.captions(index)[: 1 + index % 2]))
    data = DataConfig(source=f"folder:{folder}", views=2)
    chosen = recipe(data=data, **without("first_upsampler", "second_upsampler"))
    made = walk(tmp_path / "run", chosen)
    count = open_bundle(made).manifest["about"]["pictures"]
    assert 15 <= count < 20
    store = EmbeddingStore(tmp_path / "run" / "embeddings", views=2)
    assert len(store) == 2 * count
    for index in range(count):  # a caption is embedded once, whatever the views
        assert store.captions(index) == store.captions(count + index)
        assert np.array_equal(store.texts(index), store.texts(count + index))
        assert len(store.texts(index)) == len(store.captions(index))
    assert EmbeddingStore(tmp_path / "run" / "embeddings").captions(count) == []


# A CLIP that is there already


def taking(bundle: Path, **changes: Any) -> DALLE2Recipe:
    shape = clip(text_vocab_size=300, text_length=96, **changes)
    text = dataclasses.replace(TEXT, vocab_size=300, text_length=96)
    return recipe(
        **without("first_upsampler", "second_upsampler"),
        tokenizer=TokenizerConfig(vocab_size=300, context_length=96),
        clip=shape,
        clip_from=str(bundle),
        prior=dataclasses.replace(PRIOR, stream=text),
        decoder=dataclasses.replace(DECODER, text=text),
    )


def test_a_clip_is_taken_from_a_bundle_with_its_tokenizer_once(
    tmp_path: Path, clip_bundle: Path
) -> None:
    made = walk(tmp_path / "run", taking(clip_bundle))
    for name in ("clip.safetensors", "tokenizer.json"):
        assert (made / name).read_bytes() == (clip_bundle / name).read_bytes()
    taken = open_bundle(made).manifest["about"]["taken_from"]
    assert (taken["stage"], taken["bundle"]) == ("clip", "clip")
    assert "- clip: taken from the bundle clip" in (made / "README.md").read_text()
    chosen = taking(clip_bundle)
    shutil.rmtree(clip_bundle)
    assert walk(tmp_path / "run", chosen) == made


def test_a_clip_is_taken_from_a_dalle2(tmp_path: Path, dalle2_bundle: Path) -> None:
    made = walk(tmp_path / "run", taking(dalle2_bundle))
    theirs = (dalle2_bundle / "clip.safetensors").read_bytes()
    assert (made / "clip.safetensors").read_bytes() == theirs


def test_a_clip_that_does_not_fit_is_not_taken(
    tmp_path: Path, clip_bundle: Path, ddpm_bundle: Path, tiny_clip: CLIP
) -> None:
    with pytest.raises(ConfigError, match=r"clip\.image_layers: got 2, expected 1, as in the bun"):
        walk(tmp_path / "1", taking(clip_bundle, image_layers=2))
    assert not (tmp_path / "1" / "tokenizer.json").exists()  # before any work was done
    other = dataclasses.replace(
        taking(clip_bundle),
        tokenizer=TokenizerConfig(vocab_size=300, context_length=96, dropout=0.0),
    )
    with pytest.raises(ConfigError, match=r"tokenizer\.dropout: got 0\.0"):
        walk(tmp_path / "2", other)
    for number, without_clip in enumerate((ddpm_bundle, SHIPPED / "dalle1-scenes"), start=3):
        with pytest.raises(ConfigError, match="clip_from"):
            walk(tmp_path / str(number), taking(without_clip))


# What is trained further


STILL = dataclasses.replace(
    TRAINING, optimizer=dataclasses.replace(TRAINING.optimizer, learning_rate=Schedule.of(0.0))
)


NONE = toys.config(num_images=0)


def test_all_parts_of_a_bundle_are_trained_further(
    unbroken: tuple[Path, Watch], tmp_path: Path
) -> None:
    """At a learning rate of zero they stay what they were; the pictures are others."""
    theirs = unbroken[0] / "bundle"
    data = DataConfig(num_pictures=20, num_validation=4, seed=7)
    chosen = recipe(start_from=str(theirs), data=data)
    made = walk(tmp_path / "still", with_training(chosen, optimizer=STILL.optimizer))
    names = sorted(path.name for path in theirs.glob("*.safetensors"))
    assert len(names) == 5
    for name in names:
        found, expected = load_file(made / name), load_file(theirs / name)
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name
    assert sha256(made / "tokenizer.json") == sha256(theirs / "tokenizer.json")
    assert "- started from: the bundle bundle\n" in (made / "README.md").read_text()
    moved = walk(tmp_path / "moved", chosen)
    assert all((moved / name).read_bytes() != (theirs / name).read_bytes() for name in names)


def test_a_clip_is_taken_and_the_rest_trained_further(
    unbroken: tuple[Path, Watch], clip_bundle: Path, tmp_path: Path
) -> None:
    theirs = str(unbroken[0] / "bundle")
    made = walk(tmp_path / "run", recipe(start_from=theirs, clip_from=theirs))
    same = [
        path.name
        for path in made.glob("*.safetensors")
        if path.read_bytes() == (unbroken[0] / "bundle" / path.name).read_bytes()
    ]
    assert same == ["clip.safetensors"]
    other = dataclasses.replace(taking(clip_bundle), start_from=theirs)
    with pytest.raises(ConfigError, match=r"tokenizer\.|prior\."):
        walk(tmp_path / "other", other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"first_upsampler": unet(16, low_size=8, channels=16)},
            r"first_upsampler\.channels: got 16",
        ),
        (
            {"tokenizer": TokenizerConfig(vocab_size=280, context_length=128, dropout=0.0)},
            r"tokenizer\.dropout: got 0\.0, expected 0\.1",
        ),
    ],
)
def test_what_does_not_fit_is_not_trained_further(
    unbroken: tuple[Path, Watch], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    chosen = recipe(start_from=str(unbroken[0] / "bundle"), **changes)
    with pytest.raises(ConfigError, match=message):
        walk(tmp_path / "run", chosen)
    assert not (tmp_path / "run" / "tokenizer.json").exists()  # before any work was done


def test_captions_need_a_vocabulary_to_start_from(ddpm_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="expected a bundle that has a vocabulary of its own"):
        Start(str(ddpm_bundle)).tokenizer(recipe())


def test_the_bundle_to_start_from_is_read_once(finished: Path, tmp_path: Path) -> None:
    theirs = Path(shutil.copytree(finished / "bundle", tmp_path / "theirs"))
    chosen = recipe(start_from=str(theirs))
    watch = Watch({"prior": {16: lambda: signal.raise_signal(signal.SIGINT)}})
    with pytest.raises(Interrupted):
        walk(tmp_path / "stopped", chosen, watch=watch)
    whole = walk(tmp_path / "whole", chosen)
    shutil.copytree(tmp_path / "whole", tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone" / "bundle")
    walk(tmp_path / "stopped", chosen)
    for path in whole.glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "stopped" / "bundle" / path.name).read_bytes()
    shutil.rmtree(theirs)
    walk(tmp_path / "gone", chosen)


def test_parts_that_a_bundle_lacks_begin_anew(tmp_path: Path) -> None:
    theirs = walk(tmp_path / "glide", glide())
    decoder = dataclasses.replace(DECODER, embedding_dim=None)
    still = recipe(**without("clip", "prior"), decoder=decoder)
    still = with_training(still, optimizer=STILL.optimizer)
    begun = dataclasses.replace(still, start_from=str(theirs))
    stages: tuple[Stage, ...] = ("tokenizer", "decoder", "first_upsampler")
    for stage in stages:
        walk(tmp_path / "run", begun, stage=stage)
    made = walk(tmp_path / "run", begun)  # what is left is not in the bundle
    for name in ("decoder", "first_upsampler"):
        found, expected = (load_file(b / f"{name}.safetensors") for b in (made, theirs))
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name
    kept = dataclasses.replace(still, start_from=str(theirs), second_upsampler_training=NONE)
    with pytest.raises(ConfigError, match=r"second_upsampler_training\.num_images: got 0"):
        walk(tmp_path / "kept", kept)


def test_a_bundle_of_something_else_cannot_be_trained_further(
    clip_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected a bundle with some of decoder, first_upsampl"):
        walk(tmp_path, glide(start_from=str(clip_bundle)))


# What was made from something else


def test_what_another_clip_has_left_is_refused(finished: Path) -> None:
    shutil.rmtree(finished / "clip")
    walk(finished, stage="clip")  # the same: bit for bit
    walk(finished)
    path = state(finished, "clip").parent
    held = load_checkpoint(path)
    about = {key: value for key, value in held.about.items() if key not in ("format", "sha256")}
    moved = {name: tensor + 0.01 for name, tensor in held.tensors.items()}
    save_checkpoint(path.parent, int(path.name), Checkpoint(moved, about), keep=1)
    with pytest.raises(CheckpointError, match="embeddings was made with another clip"):
        walk(finished, stage="prior")
    shutil.rmtree(finished / "embeddings")
    walk(finished, stage="embeddings")
    for stage in ("prior", "decoder", "bundle"):
        with pytest.raises(CheckpointError, match="was made with another clip than the run now"):
            walk(finished, stage=stage)
    shutil.rmtree(finished / "prior")
    shutil.rmtree(finished / "decoder")
    walk(finished)


def test_stages_come_in_order(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the stage clip of .* is not done"):
        walk(tmp_path, stage="embeddings")
    walk(tmp_path, stage="tokenizer")
    walk(tmp_path, stage="clip")
    with pytest.raises(UsageError, match=r"the stage embeddings of .* is not done"):
        walk(tmp_path, stage="prior")


def test_a_stage_that_began_otherwise_is_refused(finished: Path) -> None:
    wider = dataclasses.replace(DECODER, channels=16)
    with pytest.raises(CheckpointError, match=r"decoder\.channels: got 16, expected 8"):
        walk(finished, recipe(decoder=wider))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_loss": None}, "clip_loss: got None, expected one, as for clip"),
        ({"first_upsampler": None}, "first_upsampler_loss: got"),
        ({"prior_loss": OneStepPriorLossConfig()}, "prior_loss: got 'OneStepPriorLossConfig'"),
        ({"tokenizer": None}, "tokenizer: got None"),
        ({"clip_training": toys.config(accumulation=2)}, "clip_training.accumulation: got 2"),
        (
            {
                "prior": OneStepPriorConfig(stream=PRIOR.stream, embedding_dim=8),
                "prior_loss": OneStepPriorLossConfig(),
                "prior_training": toys.config(accumulation=2),
            },
            "prior_training.accumulation: got 2, expected 1",
        ),
        ({**without("clip", "prior"), "clip_from": "x"}, "decoder.embedding_dim|clip_from"),
        ({"decoder": dataclasses.replace(DECODER, embedding_dim=7)}, "decoder.embedding_dim"),
        ({"wordings": Schedule.of(0.0)}, "wordings: got"),
        ({"sampling": DALLE2SamplingConfig(decoder_steps=21)}, "decoder_steps: got 21"),
    ],
)
def test_recipes_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


# From the command line


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from armchair.cli.main import main

    run = tmp_path / "run"
    command = ["train", "dalle2-scenes-tiny", "--out", str(run), "--device", "cpu", "--seed", "3"]
    command += ["--data.num-pictures", "64", "--data.num-validation", "4"]
    for stage in ("clip", "prior", "decoder", "first-upsampler"):
        command += [f"--{stage}-training.num-images", "64"]
    assert main([*command, "--decoder.channels", "8", "--decoder.head-dim", "8"]) == 0
    captured = capsys.readouterr()
    assert Path(captured.out.strip()) == run / "bundle"
    assert "armchair generate" in captured.err
    for stage in ("clip", "prior", "decoder", "first_upsampler"):
        assert list((run / stage / "previews").glob("*.png"))
    config = open_bundle(run / "bundle").manifest["about"]["recipe"]["config"]
    assert config["decoder_training"]["seed"] == 3
    assert config["decoder"]["channels"] == 8
    assert main(["plot", str(run)]) == 0
    for stage in ("clip", "prior", "decoder", "first_upsampler"):
        assert (run / stage / "curves.png").exists()
