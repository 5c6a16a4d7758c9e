from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from armchair.core.errors import ConfigError
from armchair.diffusion.interpolation import slerp


def unit(*angles: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def test_the_angle_grows_at_an_even_pace() -> None:
    one, other = unit(0.0, 0.3), unit(1.2, -0.5)
    for share in (0.25, 0.5, 0.9):
        expected = unit(1.2 * share, 0.3 - 0.8 * share)
        torch.testing.assert_close(slerp(one, other, share), expected)


def test_the_length_is_right() -> None:
    """Vectors at a cosine of 0.6, halfway: a sum of weights alone has gone wrong elsewhere."""
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    assert slerp(one, other, 0.5).norm() == pytest.approx(1.0, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 4, 3, 16, 16, generator=generator)
    between = slerp(noise[0], noise[1], 0.5)
    assert between.shape == noise[0].shape
    assert between.std() == pytest.approx(1.0, abs=0.02)  # the mean of both has 0.71


def test_lengths_lie_between_those_of_the_ends() -> None:
    between = slerp(2 * unit(0.1), 6 * unit(0.9), 0.25)
    torch.testing.assert_close(between, 3 * unit(0.3))


def test_the_ends_are_exact() -> None:
    one, other = F.normalize(torch.rand(2, 3, 5), dim=-1)
    assert torch.equal(slerp(one, other, 0.0), one)
    assert torch.equal(slerp(one, other, 1.0), other)


def test_what_is_alike_stays() -> None:
    one = unit(0.4, 1.0)
    torch.testing.assert_close(slerp(one, one, 0.3), one)
    torch.testing.assert_close(slerp(one, one + 1e-12, 0.3), one)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="share: got"):
        slerp(unit(0.0), unit(1.0), share)


def test_opposite_vectors_have_no_way_between_them() -> None:
    with pytest.raises(ConfigError, match="opposite vectors"):
        slerp(unit(0.0, 0.0), -unit(1.0, 0.0), 0.5)
