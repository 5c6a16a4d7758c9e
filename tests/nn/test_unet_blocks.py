import pytest
import torch
from torch import nn
from torch.nn import functional as F

import contracts
from armchair.nn.unet_blocks import ResidualBlock, SpatialAttention


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wake(module, std=0.2):
    """Random numbers where a new module has zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("resampling", [None, "down", "up"])
@pytest.mark.parametrize("out_channels", [8, 12])
def test_a_new_block_passes_on_what_it_gets(resampling, out_channels):
    block = ResidualBlock(8, out_channels, vector_dim=5, resampling=resampling)
    x = draw(2, 8, 4, 4)
    kept = {
        None: x,
        "down": x.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5)),
        "up": x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    }[resampling]
    torch.testing.assert_close(block(x, draw(2, 5)), block.skip(kept))
    assert isinstance(block.skip, nn.Identity) == (out_channels == 8)


def test_the_vector_scales_and_shifts_the_second_norm():
    block = wake(ResidualBlock(4, 4, vector_dim=5))
    x, vector = draw(2, 4, 4, 4), draw(2, 5, seed=1)
    h = block.first(F.silu(F.group_norm(x, 1, *block.first_norm.parameters())))
    scale, shift = F.linear(vector, *block.modulation.parameters()).view(2, 2, 4, 1, 1).unbind(1)
    h = F.group_norm(h, 1, *block.last_norm.parameters()) * (1 + scale) + shift
    torch.testing.assert_close(block(x, vector), x + block.last(F.silu(h)))


@pytest.mark.parametrize("resampling", [None, "down", "up"])
def test_pictures_stay_laid_out_by_channels(resampling):
    block = wake(ResidualBlock(8, 12, vector_dim=5, resampling=resampling))
    attention = wake(SpatialAttention(12, head_dim=4))
    x = draw(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    out = block(x, draw(2, 5))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert attention(out).is_contiguous(memory_format=torch.channels_last)


def test_attention_is_the_formula_over_tokens_and_places():
    layer = wake(SpatialAttention(8, head_dim=4, context_dim=6))
    x, context = draw(2, 8, 2, 3), draw(2, 5, 6, seed=1)
    places = F.group_norm(x, 2, *layer.norm.parameters()).flatten(2).mT  # B HW C
    q, k, v = layer.qkv(places).chunk(3, dim=-1)
    more_keys, more_values = layer.context(context).chunk(2, dim=-1)
    k, v = torch.cat([more_keys, k], 1), torch.cat([more_values, v], 1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[..., head] @ k[..., head].mT / 2).softmax(dim=-1)
        heads.append(weights @ v[..., head])
    expected = x + layer.projection(torch.cat(heads, -1)).mT.unflatten(2, (2, 3))
    torch.testing.assert_close(layer(x, context), expected)


def test_new_attention_passes_on_what_it_gets():
    x = draw(2, 8, 4, 4)
    assert torch.equal(SpatialAttention(8, head_dim=4, context_dim=6)(x, draw(2, 5, 6)), x)


def test_a_gradient_reaches_every_parameter():
    x = draw(2, 8, 4, 4)
    block = wake(ResidualBlock(8, 12, vector_dim=5))
    contracts.gradient_reaches_every_parameter(block, block(x, draw(2, 5)).square().sum())
    attention = wake(SpatialAttention(8, head_dim=4, context_dim=6))
    loss = attention(x, draw(2, 5, 6)).square().sum()
    contracts.gradient_reaches_every_parameter(attention, loss)


def test_dropout_acts_in_training_only():
    block, x = wake(ResidualBlock(8, 8, vector_dim=5, dropout=0.5)), draw(1, 8, 4, 4)
    vector = draw(1, 5)
    assert not torch.equal(block(x, vector), block(x, vector))
    block.eval()
    assert torch.equal(block(x, vector), block(x, vector))
