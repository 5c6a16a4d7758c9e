import math

import pytest
import torch

from armchair.models.autoencoders.relaxation import Relaxed, gumbel_like, relax, relax_reference


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(logits: torch.Tensor) -> Relaxed:
    return relax(logits, temperature=0.5, noise_scale=0.0)


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    """Gumbel(0, 1): mean 0.5772 (Euler's), variance pi²/6, median -ln ln 2."""
    noise = gumbel_like(torch.empty(500_000), random())
    assert noise.isfinite().all()
    assert float(noise.mean()) == pytest.approx(0.57722, abs=0.006)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.02)
    assert float(noise.median()) == pytest.approx(-math.log(math.log(2)), abs=0.006)


def test_gumbel_noise_is_uniform_underneath() -> None:
    """exp(-exp(-g)) fills the unit interval evenly, in each 64th of it."""
    uniform = (-(-gumbel_like(torch.empty(1_000_000), random(1))).exp()).exp()
    counts = torch.histc(uniform, 64, 0, 1)
    expected = len(uniform) / 64
    assert float(((counts - expected).square() / expected).sum()) < 110  # chi², 63 degrees: 99.98%


def test_numbers_of_gumbel_noise_have_nothing_to_do_with_each_other() -> None:
    noise = gumbel_like(torch.empty(200_000), random(2))
    other = gumbel_like(torch.empty(200_000), random(3))
    for lag in (1, 2, 16, 1000, 1024, 4096):
        pairs = torch.stack([noise[:-lag], noise[lag:]])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([noise, other]))[0, 1])) < 0.01


def test_gumbel_noise_is_the_generators_whatever_the_threads() -> None:
    threads = torch.get_num_threads()
    drawn = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            drawn.append(gumbel_like(torch.empty(7, 1000), random()))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], gumbel_like(torch.empty(7, 1000), random(1)))


def test_gumbel_maximum_draws_from_the_softmax() -> None:
    q = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = q.log().expand(200_000, 4)
    drawn = (logits + gumbel_like(logits, random())).argmax(1)
    torch.testing.assert_close(torch.bincount(drawn) / len(drawn), q, rtol=0, atol=0.005)


@pytest.mark.parametrize("temperature", [1.0, 1 / 16])
@pytest.mark.parametrize("with_noise", [True, False])
@pytest.mark.parametrize("size", [1, 12, 512])
def test_compiled_relaxation_is_the_reference(
    size: int, with_noise: bool, temperature: float
) -> None:
    logits = torch.randn(2, 3, size, generator=random()) * 3
    scale = 0.5 if with_noise else 0.0
    noise = gumbel_like(logits, random(1), scale=scale).double() if with_noise else None
    weights, entropy_weights = torch.randn(2, 3, size), torch.randn(2, 3)

    def all_of(given: torch.Tensor, relaxed: Relaxed) -> list[torch.Tensor]:
        draws, entropies, likeliest = relaxed
        ((draws * weights).sum() + (entropies * entropy_weights).sum()).backward()
        assert given.grad is not None
        return [x.detach().float() for x in (draws, entropies, given.grad, likeliest)]

    given, reference = logits.clone().requires_grad_(), logits.double().requires_grad_()
    relaxed = relax(given, temperature=temperature, noise_scale=scale, generator=random(1))
    expected = relax_reference(reference, noise, temperature=temperature)
    for one, other in zip(all_of(given, relaxed), all_of(reference, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_draws_in_bfloat16_are_those_in_float32_rounded() -> None:
    logits, weights = torch.randn(9, 100, generator=random()) * 3, torch.randn(9, 100).bfloat16()
    gradients = []
    draws = {}
    for dtype in (torch.float32, torch.bfloat16):
        given = logits.clone().requires_grad_()
        draws[dtype] = relax(given, temperature=0.5, generator=random(1), dtype=dtype).draws
        (draws[dtype] * weights).sum().backward()
        gradients.append(given.grad)
    assert draws[torch.bfloat16].dtype == torch.bfloat16
    assert torch.equal(draws[torch.bfloat16], draws[torch.float32].bfloat16())
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.02)


def test_of_codes_as_likely_the_first_is_the_likeliest() -> None:
    logits = torch.tensor([[1.0, 3, 3, 2], [4, 4, 0, 0], [0, 0, 0, 1], [-torch.inf] * 4])
    assert relax(logits, temperature=1.0).likeliest.tolist() == [1, 0, 3, 0]


def test_only_what_is_asked_for_has_a_gradient() -> None:
    """The KL has none at a weight of 0, as at the beginning of the paper's schedule."""
    logits = torch.randn(4, 12, generator=random())
    for part in range(2):
        gradients = []
        for function in (plain, lambda x: relax_reference(x, None, temperature=0.5)):
            given = logits.clone().requires_grad_()
            function(given)[part].square().sum().backward()
            gradients.append(given.grad)
        torch.testing.assert_close(*gradients)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-300.0, -300.0, -300.0]], requires_grad=True)
    relaxed, entropies, _ = relax(logits, temperature=1 / 16, noise_scale=0.0)
    (relaxed.square().sum() + entropies.sum()).backward()
    torch.testing.assert_close(relaxed.detach(), torch.tensor([[1.0, 0, 0], [1 / 3] * 3]))
    torch.testing.assert_close(entropies.detach(), torch.tensor([0, -math.log(3)]))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_what_is_no_number_stays_none() -> None:
    logits = torch.randn(3, 512, generator=random())
    logits[1, 5] = torch.nan
    relaxed, entropies, _ = plain(logits)
    assert relaxed.isnan().any(1).tolist() == [False, True, False]
    assert entropies.isnan().tolist() == [False, True, False]
