import pytest
import torch
from torch.nn import functional as F

from armchair.nn.amx import has_amx
from armchair.nn.linear import product


def outputs_and_gradients(function, x, weight, weights, dtype=torch.bfloat16):
    x, weight = (part.detach().clone().requires_grad_() for part in (x, weight))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = function(x, weight)
    outputs.backward(weights.to(outputs.dtype))
    return outputs.detach(), x.grad, weight.grad


@pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")
@pytest.mark.parametrize("rows", [(32,), (4, 8), (3, 320)])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 32), (64, 256), (256, 64), (1056, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weights_gradient_is_summed_without_rounding(rows, inputs, outputs, dtype):
    torch.manual_seed(0)
    x = torch.randn(*rows, inputs, dtype=dtype)
    weight, weights = torch.randn(outputs, inputs), torch.randn(*rows, outputs).bfloat16()
    found = outputs_and_gradients(product, x, weight, weights)
    expected = outputs_and_gradients(F.linear, x, weight, weights)
    for got, wanted in zip(found[:2], expected[:2], strict=True):
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, atol=0, rtol=0)
    exact = weights.double().flatten(0, -2).T @ x.bfloat16().double().flatten(0, -2)
    assert found[2].dtype == torch.float32
    torch.testing.assert_close(found[2].double(), exact, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (32, 40), (31, 32), (0, 32), (32, 0)])
def test_other_shapes_go_to_the_library(shape):
    x, weight = torch.randn(shape), torch.randn(7, shape[1])
    weights = torch.randn(shape[0], 7)
    found, expected = (
        outputs_and_gradients(one, x, weight, weights) for one in (product, F.linear)
    )
    assert all(map(torch.equal, found, expected))


def test_without_autocast_nothing_is_rounded():
    x, weight, weights = torch.randn(64, 32), torch.randn(64, 32), torch.randn(64, 64)
    found, expected = (
        outputs_and_gradients(one, x, weight, weights, torch.float32) for one in (product, F.linear)
    )
    assert all(map(torch.equal, found, expected))


@pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")
def test_a_weights_gradient_has_the_same_bits_whatever_the_threads():
    x, weight, weights = torch.randn(320, 96), torch.randn(1024, 96), torch.randn(320, 1024)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(outputs_and_gradients(product, x, weight, weights)[2])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
