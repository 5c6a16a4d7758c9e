"""CLIP's objective: one loss, whatever the chunks and the ranks; and what training makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toys
from safetensors.torch import load_file
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.models.clip import contrastive_loss
from armchair.training.objective import Loss
from armchair.training.objectives.contrastive import ContrastiveLossConfig, ContrastiveObjective
from armchair.training.optim import OptimizerConfig, decayed_parameters


def loss_of(objective: ContrastiveObjective, count: int = 8) -> Loss:
    return objective.loss(toys.pairs(count), progress=0.0, generator=torch.Generator())


def gradients(objective: ContrastiveObjective) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in objective.model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return found  # type: ignore[return-value]


def test_the_loss_is_of_the_whole_batch() -> None:
    objective, batch = toys.fit_clip(), toys.pairs(8)
    loss, model = loss_of(objective), objective.model
    embeddings = model.encode_images(batch["images"]), model.encode_texts(batch["text"])
    assert torch.equal(loss.total, contrastive_loss(*embeddings, model.scale))
    assert loss.metrics["scale"].item() == pytest.approx(1 / 0.07)


def test_near_misses_are_told_apart_from_the_captions() -> None:
    batch = toys.pairs(8)
    batch["near_misses"] = batch["text"].roll(1, dims=1)[:, None].repeat(1, 2, 1)
    losses = []
    for chunk_size in (None, 3):
        objective = toys.fit_clip(ContrastiveLossConfig(chunk_size=chunk_size, near_misses=2))
        model = objective.model
        losses.append(objective.loss(batch, progress=0.0, generator=torch.Generator()).total)
    images, texts = model.encode_images(batch["images"]), model.encode_texts(batch["text"])
    false = model.encode_texts(batch["near_misses"].flatten(0, 1))
    expected = contrastive_loss(images, texts, model.scale, false=false)
    torch.testing.assert_close(losses, [expected, expected])
    assert expected > contrastive_loss(images, texts, model.scale)


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_gradients_of_chunks_are_those_of_the_batch(chunk_size: int) -> None:
    whole = toys.fit_clip()
    chunked = toys.fit_clip(ContrastiveLossConfig(chunk_size=chunk_size))
    for objective in (whole, chunked):
        loss_of(objective).total.backward()
    torch.testing.assert_close(loss_of(chunked).total, loss_of(whole).total)
    torch.testing.assert_close(gradients(chunked), gradients(whole), atol=1e-5, rtol=1e-4)


def test_chunks_keep_their_embeddings_alone() -> None:
    """What is held for the backward pass does not grow with the model's activations."""

    def held(config: ContrastiveLossConfig) -> int:
        sizes: list[int] = []

        def count(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        objective = toys.fit_clip(config)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss_of(objective, 24)
        return sum(sizes)

    whole, chunked = held(ContrastiveLossConfig()), held(ContrastiveLossConfig(chunk_size=4))
    assert chunked < whole / 5


def test_the_loop_trains_in_chunks_as_on_the_batch_at_once(tmp_path: Path) -> None:
    losses = []
    for chunk_size in (None, 3):
        objective = toys.fit_clip(ContrastiveLossConfig(chunk_size=chunk_size))
        recorder = toys.go(objective, tmp_path / str(chunk_size), toys.config(log_every=8))
        losses.append(list(recorder.logged("train", "loss").values()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert len(losses[0]) == 20


def test_two_ranks_have_the_gradients_of_one_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in ranks:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err.decode()
    objective = toys.fit_clip()
    loss = loss_of(objective).total
    loss.backward()
    expected = {"loss": loss.detach(), **gradients(objective)}
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_decay_is_for_all_weights_that_are_not_gains_or_biases() -> None:
    """The paper's rule, embeddings included."""
    names = {name for name, _ in toys.fit_clip().model.named_parameters()}
    decayed = decayed_parameters(toys.fit_clip().model)
    for name in ("images.class_token", "images.positions", "texts.tokens", "texts.positions"):
        assert name in decayed
    spared = names - decayed
    assert "log_scale" in spared
    assert all("norm" in n or n.endswith("bias") or n == "log_scale" for n in spared)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)


def test_the_scale_is_limited_after_every_update(tmp_path: Path) -> None:
    objective = toys.fit_clip()
    with torch.no_grad():
        objective.model.log_scale.fill_(4.6)
    rate = OptimizerConfig(learning_rate=Schedule.of(0.5), average_decay=0.0)
    recorder = toys.go(objective, tmp_path, toys.config(optimizer=rate, log_every=8))
    scales = recorder.logged("train", "scale").values()
    assert max(scales) <= 100.001
    assert objective.model.scale.item() <= 100.001


def test_pairs_are_learnt_by_heart(tmp_path: Path) -> None:
    training = toys.config(num_images=7200, batch_size=30, validate_every=300)
    recorder = toys.go(toys.fit_clip(), tmp_path, training)
    for name in ("caption_recall_1", "picture_recall_1"):
        recall = list(recorder.logged("validation", name).values())
        assert recall[0] < 0.5
        assert recall[-1] > 0.9
        of_five = recorder.logged("validation", name.replace("_1", "_5"))
        assert all(five >= one for five, one in zip(of_five.values(), recall, strict=True))


def test_the_preview_shows_captions_and_what_fits_them() -> None:
    picture = toys.fit_clip().preview()
    assert picture.size == (6 * 10 + 2, 6 * 10 + 2)


def test_a_chunk_has_a_size() -> None:
    with pytest.raises(ConfigError, match="chunk_size: got 0, expected at least 1"):
        ContrastiveLossConfig(chunk_size=0)
    for count in (-1, 33):
        with pytest.raises(ConfigError, match=f"near_misses: got {count}, expected 0 to 32"):
            ContrastiveLossConfig(near_misses=count)
