from typing import Any

import pytest
import torch
from torch.nn import functional as F

import contracts
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.autoencoders.likelihoods import kl_to_uniform
from armchair.models.autoencoders.relaxation import gumbel_like

TOY: dict[str, Any] = {
    "image_size": 16,
    "codebook_size": 12,
    "codebook_dim": 6,
    "width": 8,
    "num_groups": 3,
    "blocks_per_group": 1,
}
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_on(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What `relax` adds to logits, B K h w."""
    return gumbel_like(logits.movedim(1, -1), generator).movedim(-1, 1)


@pytest.fixture(params=["linear", "distance"])
def dvae(request: pytest.FixtureRequest) -> Any:
    return contracts.seeded(lambda: DiscreteVAE(DiscreteVAEConfig(**TOY, logits=request.param)))


def test_relaxed_codes_become_hard_as_the_temperature_falls(dvae: DiscreteVAE) -> None:
    relaxed = dvae.relax(IMAGES, temperature=1e-6, noise_scale=0.0).statistics
    hard = dvae.decode_statistics(dvae.encode(IMAGES))
    torch.testing.assert_close(relaxed, hard, rtol=0, atol=1e-4)


def test_relaxed_draws_become_draws_as_the_temperature_falls(dvae: DiscreteVAE) -> None:
    output = dvae.relax(IMAGES, temperature=1e-6, generator=random(3))
    drawn = (output.logits + noise_on(output.logits, random(3))).argmax(1)
    assert not torch.equal(drawn, dvae.encode(IMAGES))
    torch.testing.assert_close(output.statistics, dvae.decode_statistics(drawn), rtol=0, atol=1e-4)


def test_the_noise_is_the_generators(dvae: DiscreteVAE) -> None:
    first, again, other = (
        dvae.relax(IMAGES, temperature=0.5, generator=random(seed)).statistics for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_can_be_scaled(dvae: DiscreteVAE) -> None:
    output = dvae.relax(IMAGES, temperature=0.5, noise_scale=0.25, generator=random())
    noisy = output.logits + 0.25 * noise_on(output.logits, random())
    embeddings = torch.einsum("bkhw,kc->bchw", F.softmax(noisy / 0.5, 1), dvae.codebook.weight)
    if not dvae.by_distance:
        embeddings = embeddings + dvae.codebook_bias[:, None, None]
    torch.testing.assert_close(output.statistics, dvae.decoder(embeddings))


def test_the_kl_is_that_of_the_posterior(dvae: DiscreteVAE) -> None:
    output = dvae.relax(IMAGES, temperature=0.5, generator=random())
    torch.testing.assert_close(output.kl_nats, kl_to_uniform(output.logits))
    torch.testing.assert_close(dvae.harden(IMAGES).kl_nats, kl_to_uniform(output.logits))


def test_the_codebook_is_the_decoders_first_convolution() -> None:
    """A 1x1 convolution of one-hot codes, in the paper; an embedding plus a bias here."""
    dvae = contracts.seeded(lambda: DiscreteVAE(DiscreteVAEConfig(**TOY)))
    torch.nn.init.normal_(dvae.codebook_bias, generator=random())
    codes = torch.randint(12, (2, 4, 4), generator=random())
    one_hot = F.one_hot(codes, 12).movedim(-1, 1).float()
    convolved = F.conv2d(one_hot, dvae.codebook.weight.T[:, :, None, None], dvae.codebook_bias)
    torch.testing.assert_close(dvae.decode_statistics(codes), dvae.decoder(convolved))


def test_linear_logits_have_no_latents() -> None:
    linear = contracts.seeded(lambda: DiscreteVAE(DiscreteVAEConfig(**TOY)))
    logits, latents = linear.posterior(IMAGES)
    assert logits.shape == (3, 12, 4, 4)
    assert latents is None
    assert "code_uses" not in linear.state_dict()


def distance_dvae() -> DiscreteVAE:
    config = DiscreteVAEConfig(**TOY, logits="distance", initial_precision=0.7)
    return contracts.seeded(lambda: DiscreteVAE(config))


def test_distance_logits_are_squared_distances_times_the_precision() -> None:
    dvae = distance_dvae()
    logits, latents = dvae.posterior(IMAGES)
    assert latents is not None
    rows = latents.movedim(1, -1).flatten(0, 2)
    distances = torch.cdist(rows, dvae.codebook.weight, compute_mode="donot_use_mm_for_euclid_dist")
    expected = -0.7 * distances.square().unflatten(0, (3, 4, 4)).movedim(-1, 1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_code_moved_onto_a_latent_is_its_code() -> None:
    dvae = distance_dvae()
    _, latents = dvae.posterior(IMAGES)
    assert latents is not None
    dvae.code_uses.zero_()
    dvae.restart_codes(
        torch.tensor([7, 2]), torch.stack([latents[0, :, 1, 2], latents[2, :, 3, 3]])
    )
    codes = dvae.encode(IMAGES)
    assert codes[0, 1, 2] == 7
    assert codes[2, 3, 3] == 2
    assert dvae.code_uses.tolist() == [0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_uses_are_tracked_in_units_of_a_fair_share() -> None:
    dvae = distance_dvae()
    codes = torch.zeros(2, 3, 4, dtype=torch.int64)  # 24 places, of which a twelfth is fair
    codes[0, 0, :2] = 5
    dvae.track_uses(codes, decay=0.75)
    assert dvae.code_uses[0] == pytest.approx(0.75 + 0.25 * 11)
    assert dvae.code_uses[5] == pytest.approx(0.75 + 0.25 * 1)
    assert dvae.code_uses[1] == pytest.approx(0.75)
    dvae.track_uses(codes, decay=0.0)
    assert dvae.code_uses.sum() == pytest.approx(12)
