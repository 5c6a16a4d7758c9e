import pytest
import torch

from armchair.models.autoencoders.quantizers import (
    code_counts,
    draw_restarts,
    perplexity,
    squared_distances,
)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_distances_agree_with_their_definition() -> None:
    latents = torch.randn(2, 5, 3, 4, generator=random(0))
    codebook = torch.randn(7, 5, generator=random(1))
    slow = (latents[:, None] - codebook[None, :, :, None, None]).square().sum(2)
    torch.testing.assert_close(squared_distances(latents, codebook), slow, rtol=1e-4, atol=1e-5)


def test_distances_stay_float32_under_autocast() -> None:
    latents, codebook = torch.randn(1, 5, 2, 2), torch.randn(7, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances = squared_distances(latents, codebook)
    assert distances.dtype == torch.float32
    assert torch.equal(distances, squared_distances(latents, codebook))


def test_counts_and_perplexity() -> None:
    codes = torch.tensor([[0, 2], [2, 0]])
    assert code_counts(codes, 4).tolist() == [2, 0, 2, 0]
    assert perplexity(code_counts(codes, 4)) == pytest.approx(2)
    assert perplexity(torch.tensor([5, 0, 0])) == pytest.approx(1)
    assert perplexity(torch.full((512,), 3)) == pytest.approx(512)


def test_restarts_are_drawn_without_repeats_where_there_is_weight() -> None:
    weights = torch.zeros(2, 3, 3)
    weights[0, 1, 1], weights[1, 0, 2], weights[1, 2, 2] = 1.0, 2.0, 3.0
    drawn = draw_restarts(weights, 10, random())
    assert sorted(drawn.tolist()) == [4, 11, 17]
    assert len(draw_restarts(weights, 2, random())) == 2


def test_restarts_favour_heavy_places() -> None:
    weights = torch.tensor([[[1.0, 9.0]]])
    drawn = torch.cat([draw_restarts(weights, 1, random(seed)) for seed in range(400)])
    assert float(drawn.float().mean()) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("count", [0, 5])
def test_no_restart_is_an_empty_draw(count: int) -> None:
    drawn = draw_restarts(torch.zeros(1, 2, 2), count, random())
    assert drawn.shape == (0,)
    assert drawn.dtype == torch.int64
