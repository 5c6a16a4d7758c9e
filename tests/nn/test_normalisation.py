import pytest
import torch
from torch import nn
from torch.nn import functional as F

from armchair.nn.normalisation import Norm


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(192, 32), (128, 32), (160, 32), (64, 16), (48, 8), (40, 8), (16, 4), (8, 2), (4, 1), (7, 1)],
)
def test_norms_are_of_32_groups_or_of_four_channels(channels, groups):
    assert Norm(channels).num_groups == groups


@pytest.mark.parametrize("channels", [8, 16, 24, 32, 40])
def test_narrow_norms_keep_what_tells_channels_apart(channels):
    """A constant on one channel, such as a picture's colour, is seen behind the norm."""
    norm, x = Norm(channels), draw(1, channels, 4, 4)
    shifted = x + torch.eye(channels)[0].view(1, -1, 1, 1)
    assert (norm(shifted) - norm(x)).abs().mean() > 0.01


def test_norms_are_computed_in_float32_also_under_autocast():
    norm = Norm(8)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    x = 1000 + draw(2, 8, 4, 4)  # bfloat16 would see steps of 4 at this size, and no variance
    exact = F.group_norm(x, 2, norm.weight, norm.bias, norm.eps)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x), exact)
        assert norm(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(
        norm(x.bfloat16()),
        F.group_norm(x.bfloat16().float(), 2, norm.weight, norm.bias, norm.eps).bfloat16(),
    )
