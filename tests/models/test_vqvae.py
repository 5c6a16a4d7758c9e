from typing import Any

import pytest
import torch
from torch import Tensor

import contracts
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig

TOY: dict[str, Any] = {
    "image_size": 16,
    "codebook_size": 12,
    "codebook_dim": 6,
    "width": 8,
    "num_groups": 3,
    "blocks_per_group": 1,
}
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def build(**changes: Any) -> VQVAE:
    return contracts.seeded(lambda: VQVAE(VQVAEConfig(**TOY | changes)))


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_quantizing_is_encoding_and_decoding() -> None:
    vqvae = build()
    output = vqvae.quantize(IMAGES)
    assert torch.equal(output.codes, vqvae.encode(IMAGES))
    torch.testing.assert_close(output.statistics, vqvae.decode_statistics(output.codes))
    assert not output.latents.requires_grad


def test_the_nearest_code_is_the_nearest() -> None:
    vqvae = build()
    latents = torch.randn(2, 6, 4, 4, generator=random())
    rows = latents.movedim(1, -1).flatten(0, 2)
    expected = torch.cdist(rows, vqvae.codebook).argmin(1).unflatten(0, (2, 4, 4))
    assert torch.equal(vqvae.nearest(latents), expected)
    codes = torch.arange(12).reshape(1, 3, 4)
    assert torch.equal(vqvae.nearest(vqvae.embed(codes)), codes)


def test_the_gradient_passes_straight_through() -> None:
    vqvae, seen = build(), {}

    def keep(name: str, tensor: Tensor) -> Tensor:
        tensor.retain_grad()
        seen[name] = tensor
        return tensor

    vqvae.encoder.register_forward_hook(lambda _, __, latents: keep("latents", latents))
    vqvae.decoder.register_forward_pre_hook(lambda _, inputs: (keep("codes", inputs[0]),))
    vqvae.quantize(IMAGES).statistics.square().sum().backward()
    assert seen["codes"].grad.any()
    assert torch.equal(seen["latents"].grad, seen["codes"].grad)


def test_commitment_reaches_the_encoder_only() -> None:
    """A rival had beta on the wrong term by default."""
    vqvae = build()
    output = vqvae.quantize(IMAGES)
    output.commitment.backward()
    assert all(parameter.grad is None for parameter in vqvae.decoder.parameters())
    assert all(parameter.grad.any() for parameter in vqvae.encoder.parameters())
    assert not vqvae.codebook.requires_grad
    nearest = vqvae.embed(output.codes)
    assert float(output.commitment.detach()) == pytest.approx(
        float((output.latents - nearest).square().mean().detach())
    )


def batch(*places: tuple[int, list[float]]) -> tuple[Tensor, Tensor]:
    """Codes and latents of a batch of one picture, one place wide."""
    codes = torch.tensor([[[code] for code, _ in places]])
    latents = torch.tensor([latent for _, latent in places]).T[None, :, :, None]
    return codes, latents


def test_the_codebook_follows_by_moving_averages() -> None:
    """N ← dN + (1-d)n, m ← dm + (1-d)Σz, e ← m/N, from nothing."""
    vqvae = build(codebook_size=2, codebook_dim=2, codebook_decay=0.75, restart_below=0.0)
    moved = vqvae.update_codebook(
        *batch((0, [1.0, 2.0]), (0, [3.0, 4.0]), (1, [9.0, -1.0])), random()
    )
    assert moved == 0
    torch.testing.assert_close(vqvae.code_uses, torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(vqvae.codebook, torch.tensor([[2.0, 3.0], [9.0, -1.0]]))
    vqvae.update_codebook(*batch((0, [6.0, 6.0])), random())
    n, m = 0.75 * 0.5 + 0.25, torch.tensor([0.75 * 1.0 + 0.25 * 6, 0.75 * 1.5 + 0.25 * 6])
    torch.testing.assert_close(vqvae.codebook[0], m / n)
    torch.testing.assert_close(vqvae.codebook[1], torch.tensor([9.0, -1.0]))
    torch.testing.assert_close(vqvae.code_uses, torch.tensor([n, 0.75 * 0.25]))


def test_the_first_batch_places_the_whole_codebook() -> None:
    vqvae = build()
    output = vqvae.quantize(IMAGES)
    restarted = vqvae.update_codebook(output.codes, output.latents, random())
    assert restarted >= 10
    rows = output.latents.movedim(1, -1).flatten(0, 2)
    distances = (vqvae.codebook[:, None] - rows).square().sum(2)
    assert int((distances.min(1).values == 0).sum()) >= restarted


def test_dead_codes_restart_at_latents_and_live_ones_stay() -> None:
    vqvae = build(codebook_size=3, codebook_dim=2, codebook_decay=0.5, restart_below=0.5)
    vqvae.code_uses.fill_(1.0)
    vqvae.latent_sums.copy_(vqvae.codebook)
    before = vqvae.codebook.clone()
    places = batch((0, [1.0, 2.0]), (1, [3.0, 4.0]))
    assert vqvae.update_codebook(*places, random()) == 0  # code 2 has fallen to one half
    torch.testing.assert_close(vqvae.codebook[2], before[2])
    assert vqvae.update_codebook(*places, random()) == 1
    assert vqvae.codebook[2].tolist() in ([1.0, 2.0], [3.0, 4.0])
    assert vqvae.code_uses[2] == 1.0
    torch.testing.assert_close(vqvae.latent_sums[2], vqvae.codebook[2])


def test_nothing_restarts_while_all_are_used() -> None:
    vqvae = build(codebook_size=2, codebook_dim=2, codebook_decay=0.9, restart_below=0.5)
    vqvae.code_uses.fill_(1.0)
    vqvae.latent_sums.copy_(vqvae.codebook)
    for _ in range(50):
        assert vqvae.update_codebook(*batch((0, [1.0, 2.0]), (1, [3.0, 4.0])), random()) == 0
    torch.testing.assert_close(
        vqvae.codebook, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), atol=0.05, rtol=0
    )


def test_restarts_are_the_generators() -> None:
    def restarted(seed: int) -> Tensor:
        vqvae = build(codebook_dim=2, restart_below=5.0)
        places = batch(*((0, [float(n), 0.0]) for n in range(40)))
        vqvae.update_codebook(*places, torch.Generator().manual_seed(seed))
        return vqvae.codebook

    assert torch.equal(restarted(1), restarted(1))
    assert not torch.equal(restarted(1), restarted(2))


def test_the_codebook_is_saved() -> None:
    assert {"codebook", "code_uses", "latent_sums"} <= build().state_dict().keys()
