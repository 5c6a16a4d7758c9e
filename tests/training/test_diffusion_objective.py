"""What a U-Net is trained on, and what training makes of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import toys
from torch import Tensor

import contracts
from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.diffusion.losses import BOUND_WEIGHT, bound_term, hybrid_loss, prior_term
from armchair.diffusion.process import ProcessConfig, add_noise
from armchair.diffusion.samplers import keyed_noise
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNet, UNetConfig
from armchair.nn.resampling import resize
from armchair.sampling.diffusion import DiffusionSampling, sample_images
from armchair.training.objectives.diffusion import (
    DiffusionLossConfig,
    DiffusionObjective,
)

PLAIN = UNetConfig(
    image_size=8,
    channels=16,
    multipliers=(1, 2),
    num_blocks=1,
    process=ProcessConfig(num_timesteps=20),
)
DECODER = dataclasses.replace(
    PLAIN,
    attention_sizes=(4,),
    head_dim=8,
    text=TextStreamConfig(vocab_size=6, text_length=4, dim=16, num_layers=1, num_heads=2),
    embedding_dim=5,
    process=ProcessConfig(num_timesteps=20, learned_variance=True),
)
UPSAMPLER = dataclasses.replace(PLAIN, low_size=2)
SAMPLING = DiffusionSampling(num_steps=5)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 8) -> dict[str, Tensor]:
    embeddings = torch.nn.functional.normalize(torch.randn(count, 5, generator=random()), dim=1)
    return {**toys.pairs(count), "embedding": embeddings}


def objective(config: UNetConfig = DECODER, **loss: Any) -> DiffusionObjective:
    model = contracts.seeded(lambda: UNet(config))
    return DiffusionObjective(
        model, DiffusionLossConfig(**loss), validation=batch(), sampling=SAMPLING
    )


class Spy:
    """Notes what the network is asked, in the place of a U-Net's forward."""

    def __init__(self, judged: DiffusionObjective, monkeypatch: pytest.MonkeyPatch) -> None:
        self.conditions: list[dict[str, Tensor]] = []
        self.inputs: list[tuple[Tensor, Tensor]] = []
        encode, forward = judged.model.encode, judged.model.forward

        def note_condition(condition: Any) -> Any:
            self.conditions.append(dict(condition))
            return encode(condition)

        def note_input(x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
            self.inputs.append((x_t, t))
            return forward(x_t, t, condition)

        monkeypatch.setattr(judged.model, "encode", note_condition)
        monkeypatch.setattr(judged.model, "forward", note_input)


def loss_of(judged: DiffusionObjective, data: dict[str, Tensor], seed: int = 0) -> Any:
    return judged.loss(data, progress=0.0, generator=random(seed))


def test_the_loss_is_the_hybrid_one(monkeypatch: pytest.MonkeyPatch) -> None:
    judged, data = objective(), batch()
    spy = Spy(judged, monkeypatch)
    loss = loss_of(judged, data)
    model = judged.model
    (x_t, t), condition = spy.inputs[0], spy.conditions[0]
    a = model.schedule.alpha_bar[t].float().view(-1, 1, 1, 1)
    noise = (x_t - a.sqrt() * data["images"]) / (1 - a).sqrt()
    output = model(x_t, t, model.encode(condition))
    simple, bound = hybrid_loss(model.schedule, data["images"], t, noise, output, "noise")
    torch.testing.assert_close(loss.total, (simple + bound).mean(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loss.metrics["simple"] + loss.metrics["bound"], loss.total.detach())
    assert not any(value.requires_grad for value in loss.metrics.values())


@pytest.mark.parametrize("parameterisation", ["noise", "x_0", "v"])
def test_without_a_learned_variance_it_is_the_error_alone(parameterisation: Any) -> None:
    process = ProcessConfig(num_timesteps=20, parameterisation=parameterisation)
    judged = objective(dataclasses.replace(PLAIN, process=process))
    loss = loss_of(judged, batch())
    assert list(loss.metrics) == ["simple"]
    assert loss.metrics["simple"] == loss.total
    # A new model says nothing, so its error is what it should have said.
    if parameterisation == "x_0":
        torch.testing.assert_close(loss.total, batch()["images"].square().mean())
    if parameterisation == "noise":
        assert loss.total.item() == pytest.approx(1.0, abs=0.1)


def test_all_timesteps_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = objective(PLAIN)
    spy = Spy(judged, monkeypatch)
    for seed in range(40):
        loss_of(judged, batch(), seed)
    counts = torch.cat([t for _, t in spy.inputs]).bincount(minlength=20)
    assert len(counts) == 20
    assert counts.min() >= 4


def test_captions_and_embeddings_are_dropped_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the captions and a tenth of the embeddings (section 2.1 of DALL·E 2)."""
    judged, data = objective(), batch(30)
    spy = Spy(judged, monkeypatch)
    for seed in range(30):
        loss_of(judged, data, seed)
    null = judged.model.null({name: data[name] for name in ("text", "embedding")})
    no_text, no_embedding = (
        torch.cat([(seen[name] == null[name]).all(dim=1) for seen in spy.conditions])
        for name in ("text", "embedding")
    )
    assert no_text.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert no_embedding.float().mean().item() == pytest.approx(0.1, abs=0.04)
    generator = random()  # the first loss drew in this order
    for of, share in ((no_text, 0.5), (no_embedding, 0.1)):
        assert torch.equal(of[:30], torch.rand(30, generator=generator) < share)
    both = (no_text & no_embedding).float().mean().item()
    assert both == pytest.approx(0.05, abs=0.03)
    kept = torch.cat([(seen["text"] == data["text"]).all(dim=1) for seen in spy.conditions])
    assert torch.equal(kept, ~no_text)


def test_the_generator_decides_the_loss() -> None:
    first, again, other = (loss_of(objective(), batch(), seed).total for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Upsamplers


def test_an_upsampler_enlarges_small_versions_of_its_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged, data = objective(UPSAMPLER), batch()
    spy = Spy(judged, monkeypatch)
    loss_of(judged, data)
    assert torch.equal(spy.conditions[0]["low"], resize(data["images"], 2))
    damaged = objective(UPSAMPLER, degradation="bsr")
    spy = Spy(damaged, monkeypatch)
    loss_of(damaged, data)
    assert not torch.equal(spy.conditions[0]["low"], resize(data["images"], 2))


def test_an_upsampler_is_trained_on_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    judged, data = objective(UPSAMPLER, crop_size=4), batch()
    spy = Spy(judged, monkeypatch)
    loss_of(judged, {**data, "images": data["images"][:, :, :4, :4]})
    assert spy.inputs[0][0].shape == (8, 3, 4, 4)
    assert spy.conditions[0]["low"].shape == (8, 3, 1, 1)


def test_crops_are_no_larger_than_the_pictures() -> None:
    with pytest.raises(ConfigError, match="crop_size: got 16, expected at most 8"):
        objective(UPSAMPLER, crop_size=16)


# Validation


@torch.no_grad()
def test_validation_spreads_timesteps_over_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = objective()
    model, data = judged.model, batch()
    spy = Spy(judged, monkeypatch)
    judged.validate(progress=0.0)
    t, first = (t for _, t in spy.inputs)
    assert torch.equal(first, torch.zeros(8, dtype=torch.int64))
    shares = 1 + torch.arange(9) * 19 / 8  # each picture has its own share of 1 to 19
    assert ((shares[:-1].floor() <= t) & (t <= shares[1:])).all()
    noise = keyed_noise([(0, n) for n in range(8)], (3, 8, 8), purpose="validation")(0)
    condition = model.encode({name: data[name] for name in ("text", "embedding")})

    def bits(t: Tensor) -> Tensor:
        x_t = add_noise(model.schedule, data["images"], t, noise)
        return bound_term(model.schedule, data["images"], x_t, t, model.denoise(x_t, t, condition))

    expected = bits(first) + 19 * bits(t) + prior_term(model.schedule, data["images"])
    for batch_size in (8, 3):
        scores = judged.validate(progress=0.0, batch_size=batch_size)
        assert scores["simple"] == pytest.approx(noise.square().mean().item(), rel=1e-4)
        assert scores["bits"] == pytest.approx(expected.mean().item(), rel=1e-3)
    assert set(objective(UPSAMPLER).validate(progress=0.0)) == {"simple"}
    assert BOUND_WEIGHT == 0.001


def test_the_bound_of_validation_is_the_sum_over_all_timesteps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = objective()
    judged.validation = batch(19)  # one for each timestep but the first
    terms = torch.logspace(1, -3, 20)

    def known(images: Tensor, _: Any, t: Tensor, __: Tensor) -> dict[str, Tensor]:
        return {"simple": terms[t], "bound": BOUND_WEIGHT * 20 * terms[t]}

    monkeypatch.setattr(judged, "_terms", known)
    last = prior_term(judged.model.schedule, judged.validation["images"]).mean()
    expected = terms.sum() + last
    assert judged.validate(progress=0.0)["bits"] == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def test_previews_show_what_is_drawn() -> None:
    decoder, upsampler = objective(), objective(UPSAMPLER, degradation="blur")
    assert decoder.preview().size == (8 * 10 + 2, 2 * 10 + 2)
    assert upsampler.preview().size == (8 * 10 + 2, 3 * 10 + 2)
    assert decoder.preview().tobytes() == decoder.preview().tobytes()


# Learning


@pytest.mark.parametrize("kind", ["decoder", "upsampler"])
def test_a_batch_is_learnt_by_heart(kind: str) -> None:
    """Pictures that are told apart by what the model is told come back."""
    torch.manual_seed(0)
    config = {"decoder": DECODER, "upsampler": UPSAMPLER}[kind]
    process = dataclasses.replace(config.process, parameterisation="x_0")
    judged, data = objective(dataclasses.replace(config, process=process)), batch(4)
    judged.config = DiffusionLossConfig(text_dropout=0.2)
    optimizer = torch.optim.AdamW(judged.model.parameters(), lr=4e-3)
    for step in range(120):
        optimizer.zero_grad()
        loss_of(judged, data, step).total.backward()
        optimizer.step()
    told = {name: data[name] for name in ("text", "embedding")}
    if kind == "upsampler":
        told = {"low": resize(data["images"], 2)}
    keys = [(5, number) for number in range(4)]
    drawn = sample_images(judged.model, told, keys=keys, settings=SAMPLING)
    assert (drawn - data["images"]).abs().mean() < 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"text_dropout": 1.0},
        {"embedding_dropout": -0.1},
        {"crop_size": 0},
        {"logit_normal": Schedule.of(1.1)},
    ],
)
def test_losses_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        DiffusionLossConfig(**changes)


def test_the_share_of_logit_normal_timesteps_follows_its_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = dataclasses.replace(DECODER, process=ProcessConfig(num_timesteps=20))
    judged = objective(plain, logit_normal=Schedule.of(1.0, (0.5, 0.0, "step")))
    spy, data = Spy(judged, monkeypatch), batch(8)
    for progress, expected in ((0.2, 0.728), (0.7, 0.5)):  # between 1/4 and 3/4 of all timesteps
        spy.inputs.clear()
        for seed in range(40):
            judged.loss(data, progress=progress, generator=random(seed))
        t = torch.cat([t for _, t in spy.inputs])
        middle = ((t >= 5) & (t < 15)).float().mean()
        assert abs(middle - expected) < 0.02


def test_a_learned_variance_asks_for_all_timesteps_alike() -> None:
    with pytest.raises(ConfigError, match=r"logit_normal: got \[1\.0\], expected 0, as a variance"):
        objective(logit_normal=Schedule.of(1.0))


@pytest.mark.parametrize("kind", ["blur", "bsr"])
def test_one_pixel_is_too_little_to_damage(kind: str) -> None:
    with pytest.raises(ConfigError, match="crop_size: got 4, expected at least 8"):
        objective(UPSAMPLER, crop_size=4, degradation=kind)


@pytest.mark.parametrize(("config", "multiple"), [(PLAIN, 2), (UPSAMPLER, 4)])
def test_crops_fit_the_model(config: UNetConfig, multiple: int) -> None:
    with pytest.raises(ConfigError, match=f"crop_size: got .*a multiple of {multiple}"):
        objective(config, crop_size=multiple + multiple // 2)
