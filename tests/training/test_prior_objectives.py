"""The losses of the priors, and what training makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toys
from torch import Tensor
from torch.nn import functional as F

import contracts
from armchair.core.errors import ConfigError
from armchair.diffusion.process import ProcessConfig
from armchair.models.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.priors.one_step import OneStepPrior, OneStepPriorConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.sampling.diffusion import DiffusionSampling
from armchair.training.objectives import prior
from armchair.training.objectives.prior import (
    AutoregressivePriorObjective,
    DiffusionPriorObjective,
    OneStepPriorLossConfig,
    OneStepPriorObjective,
    PriorLossConfig,
    PriorObjective,
)

STREAM = TextStreamConfig(vocab_size=6, text_length=4, dim=32, num_layers=2, num_heads=2)
DIM = 6


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 12, spread: float = 0.5) -> dict[str, Tensor]:
    """Pairs, the caption's embedding near the picture's."""
    images = F.normalize(torch.randn(count, DIM, generator=random()), dim=1)
    near = images + spread * torch.randn(count, DIM, generator=random(1))
    pair = {"image_embedding": images, "text_embedding": F.normalize(near, dim=1)}
    return {**toys.pairs(count), **pair}


def diffusion(**loss: Any) -> DiffusionPriorObjective:
    config = DiffusionPriorConfig(
        stream=STREAM,
        embedding_dim=DIM,
        process=ProcessConfig(num_timesteps=50, parameterisation="x_0"),
        scaling="unit",
    )
    return DiffusionPriorObjective(
        contracts.seeded(lambda: DiffusionPrior(config)),
        PriorLossConfig(**loss),
        validation=batch(),
        sampling=DiffusionSampling(num_steps=6),
    )


def autoregressive(**loss: Any) -> AutoregressivePriorObjective:
    config = AutoregressivePriorConfig(
        stream=STREAM, embedding_dim=DIM, num_components=DIM, num_buckets=32
    )
    model = contracts.seeded(lambda: AutoregressivePrior(config))
    model.space.fit(batch()["image_embedding"], batch()["text_embedding"])
    return AutoregressivePriorObjective(model, PriorLossConfig(**loss), validation=batch())


def one_step(**loss: Any) -> OneStepPriorObjective:
    config = OneStepPriorConfig(stream=STREAM, embedding_dim=DIM)
    model = contracts.seeded(lambda: OneStepPrior(config))
    return OneStepPriorObjective(model, OneStepPriorLossConfig(**loss), validation=batch())


KINDS: dict[str, Any] = {
    "diffusion": diffusion,
    "autoregressive": autoregressive,
    "one step": one_step,
}


def loss_of(judged: PriorObjective[Any], data: dict[str, Tensor], seed: int = 0) -> Any:
    return judged.loss(data, progress=0.0, generator=random(seed))


def test_the_diffusion_priors_loss_is_the_error_about_the_embedding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged, data = diffusion(condition_dropout=0.0), batch()
    seen: list[tuple[Tensor, Tensor]] = []
    forward = judged.model.forward
    monkeypatch.setattr(
        judged.model, "forward", lambda x, t, c: seen.append((x, t)) or forward(x, t, c)
    )
    total = loss_of(judged, data).total
    ((x_t, t),) = seen
    condition = {name: data[name] for name in ("text", "text_embedding")}
    output = forward(x_t, t, judged.model.encode(condition))
    x_0 = data["image_embedding"] * DIM**0.5
    torch.testing.assert_close(total, (output - x_0).square().mean())
    a = judged.model.schedule.alpha_bar[t].float()[:, None]
    noise = (x_t - a.sqrt() * x_0) / (1 - a).sqrt()
    assert noise.std().item() == pytest.approx(1.0, abs=0.25)


def test_the_autoregressive_priors_loss_is_nats_a_code() -> None:
    judged, data = autoregressive(condition_dropout=0.0), batch()
    model = judged.model
    codes = model.space.encode(data["image_embedding"])
    dots = model.space.encode_dots(data["image_embedding"], data["text_embedding"])
    logits = model(data["text"], data["text_embedding"], dots, codes)
    nats = -logits.log_softmax(dim=2).gather(2, codes[:, :, None]).mean()
    torch.testing.assert_close(loss_of(judged, data).total, nats)


def test_the_one_step_priors_loss_by_hand() -> None:
    judged, data = one_step(contrastive_weight=0.5, temperature=0.1), batch()
    loss, model = loss_of(judged, data), judged.model
    scaled = model(data["text"], data["text_embedding"])
    error = (scaled - data["image_embedding"] * DIM**0.5).square().mean()
    logits = 10 * F.normalize(scaled, dim=1) @ data["text_embedding"].mT
    contrast = -logits.log_softmax(dim=1).diagonal().mean()
    torch.testing.assert_close(loss.total, error + 0.5 * contrast)
    torch.testing.assert_close(loss.metrics["error"], error.detach())
    torch.testing.assert_close(loss.metrics["contrast"], contrast.detach())
    assert OneStepPriorLossConfig().contrastive_weight == 0.2


@pytest.mark.parametrize("kind", ["diffusion", "autoregressive"])
def test_a_tenth_of_the_captions_is_dropped_whole(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, data = KINDS[kind](), batch(30)
    dropped = []
    stream = judged.model.stream.forward

    def spy(text: Tensor, after: Tensor) -> Tensor:
        no_text = (text == judged.model.stream.null_text(len(text))).all(dim=1)
        nothing = judged.model.text_embedding.bias
        no_embedding = (after[:, 0] == nothing).all(dim=1)
        assert torch.equal(no_text, no_embedding)
        dropped.append(no_text)
        return stream(text, after)

    monkeypatch.setattr(judged.model.stream, "forward", spy)
    for seed in range(30):
        loss_of(judged, data, seed)
    assert torch.cat(dropped).float().mean().item() == pytest.approx(0.1, abs=0.04)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_validation_and_preview(kind: str) -> None:
    judged = KINDS[kind]()
    judged.model.eval()
    scores = judged.validate(progress=0.0)
    assert scores == judged.validate(progress=0.0)
    data = batch()
    drawn = judged.draw(data["text"], data["text_embedding"], 0)
    cosine = (drawn * data["image_embedding"]).sum(dim=1).mean().item()
    assert scores["cosine"] == pytest.approx(cosine, abs=1e-4)
    assert 0 <= scores["picture_recall_1"] <= 1
    assert scores["loss"] > 0
    assert judged.preview().size == (6 * 10 + 2, 6 * 10 + 2)


@torch.no_grad()
def test_the_one_step_priors_validation_tells_each_caption_from_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged, data = one_step(), batch()
    expected = float(loss_of(judged, data).total)
    for size in (len(data["text"]), 3, 1):
        monkeypatch.setattr(prior, "_BATCH_SIZE", size)
        assert judged.validate(progress=0.0)["loss"] == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_captions_keep_their_numbers_in_whatever_part_they_are_drawn(kind: str) -> None:
    judged, data = KINDS[kind](), batch()
    judged.model.eval()
    whole = judged.draw(data["text"], data["text_embedding"], 0)
    rest = judged.draw(data["text"][5:], data["text_embedding"][5:], 5)
    torch.testing.assert_close(whole[5:], rest, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_learnt_by_heart(kind: str) -> None:
    torch.manual_seed(0)
    judged, data, rate = KINDS[kind](), batch(), 3e-3
    if kind == "autoregressive":  # all captions fit alike, so that no dot product tells them apart
        data, rate = batch(spread=0.0), 1e-2
        judged.model.space.fit(data["image_embedding"], data["text_embedding"])
        judged.validation = data
    optimizer = torch.optim.AdamW(judged.model.parameters(), lr=rate)
    for step in range(150):
        optimizer.zero_grad()
        loss_of(judged, data, step).total.backward()
        optimizer.step()
    judged.model.eval()
    with torch.no_grad():
        scores = judged.validate(progress=1.0)
    # Each code is drawn, so that now and then another one comes.
    cosine, recall = (0.7, 0.6) if kind == "autoregressive" else (0.9, 0.8)
    assert scores["cosine"] > cosine
    assert scores["picture_recall_1"] > recall


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (PriorLossConfig, {"condition_dropout": 1.0}),
        (OneStepPriorLossConfig, {"contrastive_weight": -1.0}),
        (OneStepPriorLossConfig, {"temperature": 0.0}),
    ],
)
def test_losses_that_make_no_sense(config: Any, changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config(**changes)
