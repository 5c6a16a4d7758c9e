import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from armchair.models.autoencoders.likelihoods import (
    absolute_plus_squared_error,
    kl_to_uniform,
    logit_laplace_nll,
    map_pixels,
    psnr_db,
    reconstruct,
    unmap_pixels,
)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def one_pixel(values: Tensor) -> Tensor:
    """One grey pixel for each value: N 3 1 1."""
    return values[:, None, None, None].expand(-1, 3, 1, 1)


def statistics(mu: float, b: float, count: int) -> Tensor:
    one = torch.tensor([mu] * 3 + [math.log(b)] * 3, dtype=torch.float64)
    return one[None, :, None, None].expand(count, 6, 1, 1)


def density(x: Tensor, mu: float, b: float) -> Tensor:
    """The density at mapped pixels x in (0, 1), from the likelihood of the picture behind them."""
    images = (x - 0.1) / 0.8 * 2 - 1
    return torch.exp(-logit_laplace_nll(one_pixel(images), statistics(mu, b, len(x))) / 3)


@pytest.mark.parametrize(("mu", "b"), [(0.0, 1.0), (0.7, 0.4), (-2.0, 0.1), (1.0, 1.5)])
def test_the_density_integrates_to_one(mu: float, b: float) -> None:
    t = torch.linspace(-24, 24, 400_001, dtype=torch.float64)  # x = sigmoid(t)
    x = t.sigmoid()
    assert torch.trapezoid(density(x, mu, b) * x * (1 - x), t) == pytest.approx(1, abs=1e-5)


def test_the_density_at_points_computed_by_hand() -> None:
    half, white = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    assert float(density(half, 1.0, 1.0)) == pytest.approx(2 / math.e)  # 1/(2·1/4) e^-1
    assert float(density(white, 0.0, math.log(9))) == pytest.approx(
        1 / (0.18 * math.log(9)) / math.e  # logit(0.9) = ln 9 is one b away
    )


def test_a_pictures_likelihood_is_its_own_and_a_sum() -> None:
    generator = random()
    images = torch.rand(5, 3, 4, 4, generator=generator) * 2 - 1
    stats = torch.randn(5, 6, 4, 4, generator=generator)
    nll = logit_laplace_nll(images, stats)
    assert nll.shape == (5,)
    torch.testing.assert_close(nll[3:4], logit_laplace_nll(images[3:4], stats[3:4]))
    halves = [logit_laplace_nll(images[..., part], stats[..., part]) for part in ([0, 1], [2, 3])]
    torch.testing.assert_close(nll, halves[0] + halves[1])


def test_black_and_white_have_finite_likelihoods() -> None:
    images = torch.tensor([-1.0, 1.0])
    assert logit_laplace_nll(one_pixel(images), statistics(0, 1, 2).float()).isfinite().all()


def test_pixel_map_and_its_inverse() -> None:
    ends = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(map_pixels(ends), torch.tensor([0.1, 0.5, 0.9]))
    images = torch.linspace(-1, 1, 256)
    torch.testing.assert_close(unmap_pixels(map_pixels(images)), images, rtol=0, atol=1e-6)
    assert unmap_pixels(torch.tensor([0.0, 0.05, 0.95, 1.0])).tolist() == [-1, -1, 1, 1]


def test_the_likeliest_statistics_reconstruct_the_picture() -> None:
    images = torch.rand(2, 3, 4, 4, generator=random()) * 2 - 1
    stats = torch.cat([map_pixels(images).logit(), torch.zeros(2, 3, 4, 4)], dim=1)
    torch.testing.assert_close(reconstruct(stats), images, rtol=0, atol=1e-5)
    worse = logit_laplace_nll(images, stats + 0.3)
    assert (logit_laplace_nll(images, stats) < worse).all()
    assert absolute_plus_squared_error(images, stats).max() < 1e-4


def test_absolute_plus_squared_error_by_hand() -> None:
    images = torch.full((1, 3, 1, 1), -1.0)  # 0 of [0, 1]
    grey = torch.zeros(1, 6, 1, 1)  # sigmoid 1/2, so 1/2 of [0, 1]
    assert float(absolute_plus_squared_error(images, grey)) == pytest.approx(3 * (0.5 + 0.25))


def test_kl_of_the_uniform_is_zero() -> None:
    assert kl_to_uniform(torch.full((2, 8, 3, 3), 7.0)).abs().max() < 1e-5


def test_kl_of_certain_codes_is_ln_k_for_each() -> None:
    codes = torch.randint(8, (2, 3, 5), generator=random())
    logits = torch.nn.functional.one_hot(codes, 8).movedim(-1, 1) * 1e4
    torch.testing.assert_close(kl_to_uniform(logits.float()), torch.full((2,), 15 * math.log(8)))


def test_kl_by_hand() -> None:
    q = torch.tensor([0.5, 0.25, 0.125, 0.125])
    logits = q.log()[None, :, None, None] + 3.0  # the constant is no part of q
    expected = math.log(4) - 1.75 * math.log(2)
    assert float(kl_to_uniform(logits)) == pytest.approx(expected, rel=1e-5)


def test_kl_does_not_grow_with_the_batch() -> None:
    """A rival's grew from 0.17 at batch size 1 to 1.36 at 8."""
    logits = torch.randn(1, 8, 4, 4, generator=random())
    alone = float(kl_to_uniform(logits).mean())
    assert float(kl_to_uniform(logits.expand(8, -1, -1, -1)).mean()) == pytest.approx(alone)


@given(st.integers(2, 20), st.floats(0.01, 20))
@settings(deadline=None, max_examples=30)
def test_kl_stays_within_its_bounds(num_codes: int, spread: float) -> None:
    logits = torch.randn(2, num_codes, 3, 3, generator=random()) * spread
    kl = kl_to_uniform(logits)
    assert kl.min() >= -1e-4
    assert kl.max() <= 9 * math.log(num_codes) + 1e-3


def test_psnr_in_closed_form() -> None:
    images = torch.zeros(3, 3, 4, 4)
    off = torch.tensor([0.2, 0.02, 2.0])[:, None, None, None].expand(-1, 3, 4, 4)
    decibels = psnr_db(images, images + off)  # a tenth, a hundredth, and all of [0, 1]
    torch.testing.assert_close(decibels, torch.tensor([20.0, 40.0, 0.0]), rtol=0, atol=1e-3)
    assert psnr_db(images, images).isfinite().all()
