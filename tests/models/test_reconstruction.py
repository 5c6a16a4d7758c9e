from collections.abc import Callable
from typing import get_args

import pytest
import torch

from armchair.models.autoencoders.likelihoods import (
    absolute_plus_squared_error,
    logit_laplace_nll,
    map_pixels,
)
from armchair.models.autoencoders.reconstruction import (
    Reconstruction,
    error_by_place,
    error_by_place_reference,
    reconstruction_loss,
    reconstruction_reference,
)

KINDS = get_args(Reconstruction)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pictures(count: int = 4, side: int = 8) -> torch.Tensor:
    images = torch.rand(count, 3, side, side, generator=random()) * 2 - 1
    images[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    return images


def statistics_of(images: torch.Tensor) -> torch.Tensor:
    shape = (len(images), 6, *images.shape[2:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2


def test_reconstruction_loss_is_nats_a_dimension() -> None:
    images = pictures()
    statistics = statistics_of(images)
    nats = logit_laplace_nll(images, statistics).mean() / (3 * 8 * 8)
    torch.testing.assert_close(reconstruction_loss(images, statistics, "logit_laplace"), nats)


def test_the_other_reconstruction_leaves_the_means_to_the_error() -> None:
    images = pictures()
    statistics = statistics_of(images).requires_grad_()
    reconstruction_loss(images, statistics, "absolute_plus_squared").backward()
    gradient, statistics.grad = statistics.grad, None
    (absolute_plus_squared_error(images, statistics).mean() / (3 * 8 * 8)).backward()
    assert gradient is not None
    assert statistics.grad is not None
    torch.testing.assert_close(gradient[:, :3], statistics.grad[:, :3])
    assert gradient[:, 3:].any()  # the scales learn all the same


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "side"), [(1, 1), (3, 8), (2, 40)])
def test_compiled_loss_is_the_reference(kind: Reconstruction, count: int, side: int) -> None:
    images = pictures(count, side) if side > 1 else torch.zeros(count, 3, 1, 1)
    statistics = statistics_of(images)
    found = []
    for function, dtype in (
        (reconstruction_loss, torch.float32),
        (reconstruction_reference, torch.float64),
    ):
        given = statistics.to(dtype, copy=True).requires_grad_()
        loss = function(images.to(dtype), given, kind)
        (3 * loss).backward()
        assert given.grad is not None
        found.append([loss.detach().float(), given.grad.float()])
    for compiled, expected in zip(*found, strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_ends_in_none(kind: Reconstruction) -> None:
    """A run stops then."""
    images = pictures()
    for channel in (0, 4):
        statistics = statistics_of(images)
        statistics[2, channel, 3, 3] = torch.nan
        assert reconstruction_loss(images, statistics, kind).isnan()


def test_a_channels_last_decoder_is_read_right() -> None:
    images = pictures()
    statistics = statistics_of(images).to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        reconstruction_loss(images, statistics, "logit_laplace"),
        reconstruction_reference(images, statistics, "logit_laplace"),
    )


@pytest.mark.parametrize("function", [error_by_place, error_by_place_reference])
def test_error_by_place_is_the_mean_of_each_patch(function: Callable[..., torch.Tensor]) -> None:
    images = torch.zeros(1, 3, 4, 4)
    again = images.clone()
    again[0, :, :2, 2:] = 0.5
    again[0, 0, 3, 3] = 0.9
    statistics = torch.cat([map_pixels(again).logit(), again], dim=1)
    expected = torch.tensor([[[0.0, 0.5], [0.0, 0.075]]])
    torch.testing.assert_close(function(images, statistics, 2), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "side", "grid_size"), [(1, 1, 1), (3, 40, 5), (2, 16, 16)])
def test_compiled_error_by_place_is_the_reference(count: int, side: int, grid_size: int) -> None:
    images = pictures(count, side) if side > 1 else torch.zeros(count, 3, 1, 1)
    statistics = statistics_of(images)  # beyond the ends of a pixel too
    expected = error_by_place_reference(images.double(), statistics.double(), grid_size)
    found = error_by_place(images, statistics, grid_size)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
