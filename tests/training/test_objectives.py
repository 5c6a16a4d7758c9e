import math
from typing import Any

import pytest
import torch
import toys
from torch import Tensor

import contracts
from armchair.core.errors import ConfigError
from armchair.core.random import torch_generator
from armchair.core.schedules import Schedule
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.autoencoders.likelihoods import (
    kl_to_uniform,
    logit_laplace_nll,
)
from armchair.models.autoencoders.reconstruction import reconstruction_loss
from armchair.models.autoencoders.relaxation import gumbel_like
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig
from armchair.models.sequence.text_to_image import (
    TextToImageConfig,
    TextToImageLoss,
    TextToImageTransformer,
)
from armchair.training.objective import Loss, Objective
from armchair.training.objectives import autoencoder_objective
from armchair.training.objectives.autoencoder import AutoencoderObjective
from armchair.training.objectives.discrete_vae import (
    DiscreteVAELossConfig,
    DiscreteVAEObjective,
    usage_penalty,
)
from armchair.training.objectives.text_to_image import (
    TextToImageLossConfig,
    TextToImageObjective,
)
from armchair.training.objectives.vqvae import VQVAELossConfig, VQVAEObjective

IMAGES = toys.validation_images()
DIMENSIONS = 3 * 8 * 8


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dvae_objective(logits: Any = "linear", **loss: Any) -> DiscreteVAEObjective:
    shape = DiscreteVAEConfig(**toys.SHAPE, logits=logits)
    model = contracts.seeded(lambda: DiscreteVAE(shape))
    return DiscreteVAEObjective(model, DiscreteVAELossConfig(**loss), IMAGES)


def loss_of(objective: Objective[Any], images: Tensor, *, progress: float = 0.5) -> Loss:
    return objective.loss({"images": images}, progress=progress, generator=random())


# The discrete VAE


def test_the_loss_is_the_relaxed_bound() -> None:
    objective = dvae_objective(kl_weight=Schedule.of(0.0, (1.0, 2.0, "linear")))
    loss = loss_of(objective, IMAGES, progress=0.75)
    output = objective.model.relax(
        IMAGES, temperature=objective.config.temperature(0.75), generator=random()
    )
    nll = logit_laplace_nll(IMAGES, output.statistics).mean()
    kl = kl_to_uniform(output.logits).mean()
    torch.testing.assert_close(loss.total, (nll + 1.5 * kl) / DIMENSIONS)
    assert float(loss.metrics["kl_weight"]) == 1.5
    torch.testing.assert_close(loss.metrics["kl_nats"], kl.detach())
    assert not any(value.requires_grad for value in loss.metrics.values())


def test_the_kl_does_not_grow_with_the_batch() -> None:
    """A rival's grew with the batch size, and its weight was 0 unless asked for."""
    objective = dvae_objective()
    one = loss_of(objective, IMAGES[:1]).metrics["kl_nats"]
    eight = loss_of(objective, IMAGES[:1].expand(8, -1, -1, -1)).metrics["kl_nats"]
    torch.testing.assert_close(one, eight)
    assert objective.config.kl_weight(1.0) == 6.6


def test_schedules_follow_progress() -> None:
    objective = dvae_objective(noise=Schedule.of(0.0, (1.0, 1.0, "linear")))
    for progress in (0.0, 0.02, 1.0):
        metrics = loss_of(objective, IMAGES, progress=progress).metrics
        for name in ("temperature", "kl_weight", "noise"):
            expected = getattr(objective.config, name)(progress)
            assert float(metrics[name]) == pytest.approx(expected)


def test_the_usage_penalty_by_hand() -> None:
    """Two codes share everything, two have (almost) nothing: ln(floor/K) - ln(1e-12), halved."""
    logits = torch.tensor([0.0, 0.0, -1e4, -1e4])[None, :, None, None].expand(2, 4, 3, 3)
    expected = (math.log(0.2 / 4) - math.log(1e-12)) / 2
    assert float(usage_penalty(logits, 0.2)) == pytest.approx(expected, rel=1e-4)
    assert float(usage_penalty(torch.zeros(2, 4, 3, 3), 0.2)) == 0.0


def test_the_usage_penalty_feels_only_codes_below_the_floor() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -8.0])[None, :, None, None].requires_grad_()
    usage_penalty(logits, 0.2).backward()
    assert logits.grad is not None
    push = -logits.grad.flatten()
    assert push[3] > 0
    assert (push[:3] <= 0).all()


def test_the_usage_penalty_is_part_of_the_loss() -> None:
    plain, rewarded = dvae_objective(), dvae_objective(usage_weight=2.0, usage_floor=1.0)
    totals = [loss_of(objective, IMAGES) for objective in (plain, rewarded)]
    penalty = totals[1].metrics["usage_penalty"]
    assert penalty > 0
    torch.testing.assert_close(totals[1].total, totals[0].total + 2 * penalty)


def test_commitment_pulls_latents_to_their_codes() -> None:
    objective = dvae_objective("distance", commitment_weight=0.5)
    loss = loss_of(objective, IMAGES)
    logits, latents = objective.model.posterior(IMAGES)
    assert latents is not None
    nearest = objective.model.codebook(logits.argmax(1)).movedim(-1, 1)
    expected = (latents - nearest).square().mean()
    torch.testing.assert_close(loss.metrics["commitment"], expected.detach())
    plain = loss_of(dvae_objective("distance"), IMAGES)
    torch.testing.assert_close(loss.total, plain.total + 0.5 * expected)


def test_unused_codes_restart_where_pictures_come_out_badly() -> None:
    objective = dvae_objective("distance", restart_below=0.953)
    model, images = objective.model, torch.rand(4, 3, 8, 8, generator=random()) * 2 - 1
    with torch.no_grad():
        model.codebook.weight[:4] = model.encoder(images)[:, :, 0, 0]  # used at least there
        model.codebook.weight[4:] += 1000.0  # out of reach
    before = model.codebook.weight.detach().clone()
    loss_of(objective, images[:2])
    loss_of(objective, images[2:])
    latents = torch.cat([output.latents for output in objective.outputs])
    assert objective.after_update(random()) == {"restarted": 4.0}
    assert torch.equal(model.codebook.weight[:4], before[:4])
    rows = latents.movedim(1, -1).flatten(0, 2)
    differences = model.codebook.weight[4:, None].detach() - rows
    nearest = differences.square().sum(2).min(1)
    assert nearest.values.max() == 0
    assert len(nearest.indices.unique()) == 4
    assert objective.outputs == []
    assert objective.after_update(random()) == {}


def test_codes_stay_where_they_are_at_the_end_of_a_run() -> None:
    objective = dvae_objective("distance", restart_below=0.97, restart_until=0.7)
    loss_of(objective, IMAGES, progress=0.7)
    assert objective.after_update(random()) == {}
    loss_of(objective, IMAGES, progress=0.69)
    assert "restarted" in objective.after_update(random())


@pytest.mark.parametrize("logits", ["linear", "distance"])
def test_at_the_end_the_decoder_alone_learns_from_hard_codes(logits: str) -> None:
    options = {"commitment_weight": 0.5, "usage_weight": 0.1, "restart_below": 0.97}
    objective = dvae_objective(logits, decoder_only_from=0.6, restart_until=1.0, **options)
    model = objective.model
    loss_of(objective, IMAGES, progress=0.59).total.backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())
    objective.after_update(random())
    model.zero_grad()
    loss = loss_of(objective, IMAGES, progress=0.6)
    statistics = model.decode_statistics(model.encode(IMAGES))
    torch.testing.assert_close(loss.total, reconstruction_loss(IMAGES, statistics, "logit_laplace"))
    loss.total.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {f"decoder.{name}" for name, _ in model.decoder.named_parameters()}
    assert objective.after_update(random()) == {}


def test_linear_logits_restart_nothing() -> None:
    objective = dvae_objective("linear", restart_below=0.97)
    assert "commitment" not in loss_of(objective, IMAGES).metrics
    assert objective.after_update(random()) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": Schedule.of(1.0, (1.0, 0.0, "linear"))},
        {"usage_floor": 0.0},
        {"decoder_only_from": 1.2},
    ],
)
def test_a_loss_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))}: got"):
        DiscreteVAELossConfig(**change)


# The VQ-VAE


def vqvae_objective() -> VQVAEObjective:
    model = contracts.seeded(lambda: VQVAE(VQVAEConfig(**toys.SHAPE)))
    return VQVAEObjective(model, VQVAELossConfig(), IMAGES)


def test_the_loss_of_a_vqvae() -> None:
    objective = vqvae_objective()
    loss, output = loss_of(objective, IMAGES), objective.model.quantize(IMAGES)
    nll = logit_laplace_nll(IMAGES, output.statistics).mean() / DIMENSIONS
    torch.testing.assert_close(loss.total, nll + 0.25 * output.commitment)


def test_the_codebook_moves_once_an_update() -> None:
    whole, parts = vqvae_objective(), vqvae_objective()
    loss_of(whole, IMAGES)
    loss_of(parts, IMAGES[:2])
    loss_of(parts, IMAGES[2:])
    moved = [objective.after_update(random()) for objective in (whole, parts)]
    assert moved[0] == moved[1]
    assert parts.outputs == []
    torch.testing.assert_close(whole.model.codebook, parts.model.codebook)


# What both share


@pytest.fixture(params=["linear", "distance", "vqvae"])
def autoencoding(request: pytest.FixtureRequest) -> AutoencoderObjective[Any]:
    return vqvae_objective() if request.param == "vqvae" else dvae_objective(request.param)


def test_scores_of_a_validation(autoencoding: AutoencoderObjective[Any]) -> None:
    with torch.no_grad():
        scores, again, split = (
            autoencoding.validate(progress=1.0, batch_size=size) for size in (32, 32, 3)
        )
    assert scores == again
    assert {"psnr_db", "codes_used", "perplexity", "true_elbo_bits"} <= scores.keys()
    assert 1 <= scores["perplexity"] <= scores["codes_used"] + 1e-9 <= 8 + 1e-9
    assert all(map(math.isfinite, scores.values()))
    for name in ("psnr_db", "codes_used", "perplexity"):
        assert split[name] == pytest.approx(scores[name], rel=1e-4)


def test_scores_leave_the_codebook_alone(autoencoding: AutoencoderObjective[Any]) -> None:
    before = {name: t.clone() for name, t in autoencoding.model.state_dict().items()}
    with torch.no_grad():
        autoencoding.validate(progress=1.0)
        autoencoding.preview()
    after = autoencoding.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_bound_of_certain_codes() -> None:
    """A VQ-VAE's q is certain: its KL is ln K for each code."""
    objective = vqvae_objective()
    codes = objective.model.encode(IMAGES)
    nll = logit_laplace_nll(IMAGES, objective.model.decode_statistics(codes))
    expected = -nll - 16 * math.log(8)
    torch.testing.assert_close(objective.model.elbo_nats(IMAGES), expected)


def test_bounds_of_a_dvae_are_seeded() -> None:
    objective = dvae_objective()

    def bounds_of(seed: int) -> dict[str, torch.Tensor]:
        generator = torch_generator("elbo", seed)
        return objective.bounds(IMAGES, progress=1.0, generator=generator)

    bounds = [bounds_of(seed) for seed in (0, 0, 1)]
    for name in ("relaxed_elbo", "true_elbo"):
        assert torch.equal(bounds[0][name], bounds[1][name])
        assert not torch.equal(bounds[0][name], bounds[2][name])


def test_the_relaxed_bound_is_that_of_the_schedules() -> None:
    """What a validation reports is what training optimises at that moment."""
    schedule = Schedule.of(1.0, (1.0, 1 / 16, "linear"))
    objective = dvae_objective(temperature=schedule)
    logits, _ = objective.model.posterior(IMAGES)

    def bound(progress: float) -> torch.Tensor:
        generator = torch_generator("elbo", 0)
        bounds = objective.bounds(IMAGES, progress=progress, generator=generator)
        return bounds["relaxed_elbo"]

    def expected(temperature: float) -> torch.Tensor:
        generator = torch_generator("elbo", 0)
        gumbel_like(logits, generator)  # the true bound draws first
        relaxed = objective.model.relax(IMAGES, temperature=temperature, generator=generator)
        return -logit_laplace_nll(IMAGES, relaxed.statistics) - kl_to_uniform(logits)

    torch.testing.assert_close(bound(0.0), expected(1.0))
    torch.testing.assert_close(bound(1.0), expected(1 / 16))


def test_the_preview_shows_pictures_above_what_their_codes_say(
    autoencoding: AutoencoderObjective[Any],
) -> None:
    assert autoencoding.preview().size == (4 * (8 + 2) + 2, 2 * (8 + 2) + 2)


LARGER: dict[str, Any] = {
    **toys.SHAPE,
    "codebook_size": 32,
    "width": 16,
    "residual_gain": 0.3,
}


def memorising_dvae(logits: Any, **loss: Any) -> DiscreteVAEObjective:
    """Sharpens as it learns, as a small budget wants it."""
    config = DiscreteVAELossConfig(
        temperature=Schedule.of(1.0, (0.8, 1 / 16, "cosine")),
        kl_weight=Schedule.of(0.0),
        noise=Schedule.of(0.0, (0.8, 1.0, "linear")),
        **loss,
    )
    model = contracts.seeded(lambda: DiscreteVAE(DiscreteVAEConfig(**LARGER, logits=logits)))
    return DiscreteVAEObjective(model, config, IMAGES)


def memorising_vqvae() -> VQVAEObjective:
    config = VQVAELossConfig(commitment_weight=0.025, reconstruction="absolute_plus_squared")
    model = contracts.seeded(lambda: VQVAE(VQVAEConfig(**LARGER)))
    return VQVAEObjective(model, config, IMAGES)


MEMORISING = {
    "linear": lambda: memorising_dvae("linear"),
    "distance": lambda: memorising_dvae(
        "distance",
        reconstruction="absolute_plus_squared",
        commitment_weight=0.03,
        restart_below=0.1,
    ),
    "vqvae": memorising_vqvae,
}


@pytest.mark.parametrize("name", MEMORISING)
def test_one_batch_is_learnt_by_heart(name: str) -> None:
    objective: AutoencoderObjective[Any] = MEMORISING[name]()
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=3e-3)
    with torch.no_grad():
        before = objective.validate(progress=1.0)["psnr_db"]
    for step in range(200):
        loss = objective.loss({"images": IMAGES}, progress=step / 200, generator=random(step))
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_update(random(step))
    with torch.no_grad():
        after = objective.validate(progress=1.0)["psnr_db"]
    assert after > before + 8


def test_each_tokenizer_has_its_objective() -> None:
    dvae, vqvae = toys.fit_dvae().model, toys.fit_vqvae().model
    assert isinstance(autoencoder_objective(dvae, IMAGES), DiscreteVAEObjective)
    given = VQVAELossConfig(commitment_weight=1.0)
    built = autoencoder_objective(vqvae, IMAGES, given)
    assert isinstance(built, VQVAEObjective)
    assert built.config is given


# The transformer

TRANSFORMER = TextToImageConfig(
    text_vocab_size=10,
    text_length=5,
    image_vocab_size=8,
    grid_size=2,
    dim=16,
    num_layers=2,
    num_heads=2,
    attention="full",
)
TEXT = torch.tensor([[1, 2, 3, 13, 14], [4, 5, 12, 13, 14], [6, 7, 8, 9, 1]])
CODES = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[1, 1], [1, 1]]])


def text_to_image(**loss: float) -> TextToImageObjective:
    return TextToImageObjective(
        contracts.seeded(lambda: TextToImageTransformer(TRANSFORMER)),
        TextToImageLossConfig(**loss),
        text=TEXT,
        codes=CODES,
        decode=lambda codes: torch.zeros(len(codes), 3, 8, 8),
    )


BATCH = {"text": TEXT, "codes": CODES}


def test_text_weighs_an_eighth_and_the_image_seven() -> None:
    objective = text_to_image(condition_dropout=0.0)
    loss = objective.loss(BATCH, progress=0.0, generator=random())
    parts = objective.model.loss(TEXT, CODES.flatten(1))
    torch.testing.assert_close(loss.total, parts.text / 8 + 7 * parts.image / 8)
    torch.testing.assert_close(loss.metrics["text_nats"], parts.text.detach())
    torch.testing.assert_close(loss.metrics["image_nats"], parts.image.detach())
    assert not any(value.requires_grad for value in loss.metrics.values())


def test_weights_can_be_chosen() -> None:
    loss = text_to_image(text_weight=0.0, image_weight=2.0).loss(
        BATCH, progress=0.0, generator=random()
    )
    torch.testing.assert_close(loss.total.detach(), 2 * loss.metrics["image_nats"])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_captions_are_dropped_in_their_share(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Without dropped captions guidance degrades, as in a rival's priors."""
    objective, dropped = text_to_image(condition_dropout=share), []

    def loss(text: Tensor, codes: Tensor, *, drop_condition: Tensor) -> TextToImageLoss:
        dropped.append(drop_condition)
        return TextToImageLoss(text=torch.zeros(()), image=torch.zeros(()))

    monkeypatch.setattr(objective.model, "loss", loss)
    batch = {"text": TEXT.repeat(2000, 1), "codes": CODES.repeat(2000, 1, 1)}
    for seed in (0, 0, 1):
        objective.loss(batch, progress=0.0, generator=random(seed))
    assert float(dropped[0].float().mean()) == pytest.approx(share, abs=0.02)
    assert torch.equal(dropped[0], dropped[1])
    assert share == 0 or not torch.equal(dropped[0], dropped[2])


def test_bits_of_a_validation() -> None:
    objective = text_to_image()
    with torch.no_grad():
        scores = objective.validate(progress=1.0)
        parts = objective.model.loss(TEXT, CODES.flatten(1))
    assert scores["text_bits"] == pytest.approx(float(parts.text) / math.log(2), rel=1e-5)
    assert scores["image_bits"] == pytest.approx(float(parts.image) / math.log(2), rel=1e-5)
    assert scores["picture_bits"] == pytest.approx(4 * scores["image_bits"])
    assert 2.5 < scores["image_bits"] < 3.5  # untrained: the 3 bits of 8 codes
    with torch.no_grad():
        assert objective.validate(progress=1.0, batch_size=2) == pytest.approx(scores, rel=1e-5)


def test_the_preview_shows_codes_above_what_is_drawn() -> None:
    shown: list[Tensor] = []
    objective = text_to_image()

    def decode(codes: Tensor) -> Tensor:
        shown.append(codes)
        return torch.zeros(len(codes), 3, 8, 8)

    objective.decode = decode
    assert objective.preview().size == (3 * (8 + 2) + 2, 2 * (8 + 2) + 2)
    objective.preview()
    true, drawn, _, again = shown
    assert torch.equal(true, CODES)
    assert drawn.shape == CODES.shape
    assert torch.equal(drawn, again)


def test_one_batch_of_captions_and_codes_is_learnt_by_heart() -> None:
    objective = text_to_image(condition_dropout=0.0)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=1e-2)
    for _ in range(100):
        objective.loss(BATCH, progress=0.0, generator=random()).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert objective.validate(progress=1.0)["image_bits"] < 0.1


@pytest.mark.parametrize(
    "change",
    [{"condition_dropout": 1.0}, {"condition_dropout": -0.1}, {"text_weight": -1.0}],
)
def test_weights_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))}: got"):
        TextToImageLossConfig(**change)
