"""What the image tokenizers share: contracts, sizes, and what a configuration refuses."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import contracts
from armchair.core.config import from_dict
from armchair.core.errors import ConfigError
from armchair.models.autoencoders.convolutional import AutoencoderConfig, Decoder, Encoder
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.likelihoods import kl_to_uniform, logit_laplace_nll
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig

TOY: dict[str, Any] = {
    "image_size": 16,
    "codebook_size": 12,
    "codebook_dim": 6,
    "width": 8,
    "num_groups": 3,
    "blocks_per_group": 1,
}
FOLDED: dict[str, Any] = {"patch_size": 2, "num_groups": 2, "input_kernel": 3}
KINDS: dict[str, Callable[[], ImageTokenizer]] = {
    "linear": lambda: DiscreteVAE(DiscreteVAEConfig(**TOY)),
    "distance": lambda: DiscreteVAE(DiscreteVAEConfig(**TOY, logits="distance")),
    "folded": lambda: DiscreteVAE(DiscreteVAEConfig(**TOY | FOLDED)),
    "vqvae": lambda: VQVAE(VQVAEConfig(**TOY)),
}
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokenizer(kind: str) -> ImageTokenizer:
    return contracts.seeded(KINDS[kind])


def test_shapes_and_ranges(tokenizer: ImageTokenizer) -> None:
    codes = tokenizer.encode(IMAGES)
    assert codes.shape == (3, 4, 4)
    assert codes.min() >= 0
    assert codes.max() < 12
    statistics = tokenizer.decode_statistics(codes)
    assert statistics.shape == (3, 6, 16, 16)
    assert statistics.dtype == torch.float32
    again = tokenizer.decode(codes)
    assert again.shape == IMAGES.shape
    assert again.abs().max() <= 1


def test_codes_of_any_grid_decode(tokenizer: ImageTokenizer) -> None:
    assert tokenizer.decode(torch.zeros(1, 2, 3, dtype=torch.int64)).shape == (1, 3, 8, 12)


def test_statistics_are_float32_under_autocast(tokenizer: ImageTokenizer) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = tokenizer.encode(IMAGES)
        assert tokenizer.decode_statistics(codes).dtype == torch.float32
        assert tokenizer.decode(codes).dtype == torch.float32


def test_encoding_draws_nothing(tokenizer: ImageTokenizer) -> None:
    """A rival's tokenizer sampled Gumbel noise at inference: an image's codes were random."""
    torch.manual_seed(0)
    first = tokenizer.encode(IMAGES)
    state = torch.get_rng_state()
    again = tokenizer.train().encode(IMAGES)
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())


def test_rows_do_not_mix(tokenizer: ImageTokenizer) -> None:
    contracts.rows_do_not_mix(tokenizer.encode, IMAGES, tolerance=0)
    contracts.rows_do_not_mix(tokenizer.encoder, IMAGES, tolerance=1e-5)
    codes = tokenizer.encode(IMAGES)
    contracts.rows_do_not_mix(tokenizer.decode_statistics, codes, tolerance=1e-5)


def statistics(tokenizer: ImageTokenizer) -> Tensor:
    return tokenizer.decode_statistics(tokenizer.encode(IMAGES))


def test_saves_and_loads(kind: str, tmp_path: Path) -> None:
    contracts.saves_and_loads(KINDS[kind], statistics, tmp_path / "state.safetensors")


def test_same_seed_same_result(kind: str) -> None:
    contracts.same_seed_same_result(KINDS[kind], statistics)


@pytest.mark.parametrize("logits", ["linear", "distance"])
@pytest.mark.parametrize("detach_scale", [False, True])
def test_gradient_reaches_every_parameter_of_a_dvae(logits: Any, detach_scale: bool) -> None:
    config = DiscreteVAEConfig(**TOY, logits=logits, detach_scale=detach_scale)
    dvae = contracts.seeded(lambda: DiscreteVAE(config))
    output = dvae.relax(IMAGES, temperature=1.0, generator=torch.Generator().manual_seed(0))
    loss = logit_laplace_nll(IMAGES, output.statistics) + kl_to_uniform(output.logits)
    contracts.gradient_reaches_every_parameter(dvae, loss.mean())


def test_gradient_reaches_every_parameter_of_a_vqvae() -> None:
    vqvae = contracts.seeded(lambda: VQVAE(VQVAEConfig(**TOY)))
    output = vqvae.quantize(IMAGES)
    loss = logit_laplace_nll(IMAGES, output.statistics).mean() + output.commitment
    contracts.gradient_reaches_every_parameter(vqvae, loss)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_the_paper() -> None:
    """The published encoder has 53,786,240, and decoder and codebook together 43,829,766."""
    with torch.device("meta"):
        dvae = DiscreteVAE(DiscreteVAEConfig())
    assert count(dvae.encoder) == 53_786_240
    assert count(dvae) - count(dvae.encoder) == 43_829_766
    assert dvae.config.grid_size == 32
    assert dvae.config.gain == 1 / 64


def test_the_decoder_can_leave_its_scale_to_a_readout() -> None:
    """With `detach_scale`, the scale's gradient stops before the features."""
    config = AutoencoderConfig(**TOY, detach_scale=True)
    decoder = contracts.seeded(lambda: Decoder(config))
    plain = contracts.seeded(lambda: Decoder(AutoencoderConfig(**TOY)))
    embeddings = torch.randn(1, 6, 4, 4, requires_grad=True)
    torch.testing.assert_close(decoder(embeddings), plain(embeddings))
    decoder(embeddings)[:, 3:].square().sum().backward()
    assert embeddings.grad is None or not embeddings.grad.any()
    assert decoder.output.weight.grad[3:].any()  # type: ignore[union-attr, index]
    decoder(embeddings)[:, :3].square().sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.any()


def test_the_log_scale_has_a_floor() -> None:
    config = AutoencoderConfig(**TOY, min_log_scale=0.25)
    decoder = contracts.seeded(lambda: Decoder(config))
    plain = contracts.seeded(lambda: Decoder(AutoencoderConfig(**TOY)))
    embeddings = torch.randn(1, 6, 4, 4)
    floored, free = decoder(embeddings), plain(embeddings)
    assert torch.equal(floored[:, :3], free[:, :3])
    assert torch.equal(floored[:, 3:], free[:, 3:].clamp_min(0.25))
    assert (free[:, 3:] < 0.25).any()


def test_untrained_features_keep_their_scale() -> None:
    config = AutoencoderConfig(**TOY | {"width": 64, "blocks_per_group": 2})
    encoder = contracts.seeded(lambda: Encoder(config, out_channels=32))
    features = encoder(IMAGES).detach()
    assert 0.3 < features.std() < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 0}, "codebook_size: got 0"),
        ({"codebook_dim": 0}, "codebook_dim: got 0"),
        ({"num_groups": 0}, "num_groups: got 0"),
        ({"blocks_per_group": 0}, "blocks_per_group: got 0"),
        ({"patch_size": 0}, "patch_size: got 0"),
        ({"input_kernel": 4}, "input_kernel: got 4, expected odd"),
        ({"input_kernel": -1}, "input_kernel: got -1"),
        ({"width": 6}, "width: got 6, expected a positive multiple of 4"),
        ({"width": 0}, "width: got 0"),
        ({"image_size": 18}, "image_size: got 18, expected a positive multiple of 4"),
        ({"image_size": 0}, "image_size: got 0"),
        ({"initial_precision": 0.0}, r"initial_precision: got 0\.0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiscreteVAEConfig(**TOY | changes)


def test_logits_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="logits: got 'cosine'"):
        from_dict(DiscreteVAEConfig, {**TOY, "logits": "cosine"})


@pytest.mark.parametrize("changes", [{"codebook_decay": 1.0}, {"restart_below": -0.1}])
def test_a_codebook_that_cannot_move_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        VQVAEConfig(**TOY, **changes)


def test_a_pixel_folded_into_channels_counts_as_downsampling() -> None:
    config = AutoencoderConfig(**TOY)
    folded = dataclasses.replace(config, **FOLDED)
    assert (config.downsampling, folded.downsampling) == (4, 4)
    assert (config.grid_size, folded.grid_size) == (4, 4)
    assert (config.gain, folded.gain) == (1 / 9, 1 / 4)
    assert dataclasses.replace(config, residual_gain=0.3).gain == 0.3
