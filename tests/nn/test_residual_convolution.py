from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import contracts
from armchair.nn.residual_convolution import BottleneckBlock, convolution

X = torch.randn(3, 8, 5, 6, generator=torch.Generator().manual_seed(0))


def block(*, out_channels: int = 12, upsample: bool = False, gain: float = 0.5) -> BottleneckBlock:
    return contracts.seeded(
        lambda: BottleneckBlock(
            8, out_channels, kernel_sizes=(1, 3, 3, 3), gain=gain, upsample=upsample
        )
    )


@pytest.mark.parametrize("out_channels", [8, 12])
def test_upsampling_after_the_first_layer_equals_upsampling_before(out_channels: int) -> None:
    fast = block(out_channels=out_channels, upsample=True)
    slow = block(out_channels=out_channels)
    slow.load_state_dict(fast.state_dict())
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    outputs = fast(inputs[0]), slow(F.interpolate(inputs[1], scale_factor=2, mode="nearest"))
    assert outputs[0].shape == (3, out_channels, 10, 12)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-3)
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-2)


def test_the_block_is_skip_plus_gain_times_four_convolutions() -> None:
    built, residual = block(gain=0.25), X
    for layer in built.convolutions:
        residual = layer(F.relu(residual))
    torch.testing.assert_close(built(X), built.skip(X) + 0.25 * residual)


def test_the_skip_is_the_identity_where_the_width_stays() -> None:
    built = block(out_channels=8, gain=0.0)
    assert torch.equal(built(X), X)


def test_the_input_is_left_as_it_was() -> None:
    x = X.clone()
    block()(x)
    assert torch.equal(x, X)


def test_contracts(tmp_path: Path) -> None:
    built = block(upsample=True)
    contracts.gradient_reaches_every_parameter(built, built(X).square().mean())
    contracts.rows_do_not_mix(built, X, tolerance=1e-5)
    contracts.saves_and_loads(block, lambda b: b(X), tmp_path / "state.safetensors")


def test_a_convolution_keeps_the_variance() -> None:
    layer = contracts.seeded(lambda: convolution(64, 64, 3))
    x = torch.randn(2, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    inner = layer(x).detach()[..., 1:-1, 1:-1]
    assert float(inner.var()) == pytest.approx(1, abs=0.15)
    assert layer.bias is not None
    assert not layer.bias.any()  # type: ignore[operator]


def test_upsampling_needs_a_pointwise_first_layer() -> None:
    with pytest.raises(ValueError, match="upsample: the first kernel is 3"):
        BottleneckBlock(8, 8, kernel_sizes=(3, 3, 3, 1), gain=1.0, upsample=True)
