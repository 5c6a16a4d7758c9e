import numpy as np
import pytest
import torch
from torch.nn import functional as F

from armchair.core.jit import jit
from armchair.core.vectors import LANES, load, load_first, store, store_first
from armchair.nn.compiled_functions import (
    exp,
    exp2,
    exp_64,
    exp_sum,
    gelu,
    gelu_slope,
    layer_norm,
    log,
    softmax,
    stored_in,
    widened,
)


@jit()
def each_exp(x):
    for i in range(len(x)):
        x[i] = exp(x[i])


@jit()
def each_gelu(x):
    for at in range(0, len(x), LANES):
        left = min(LANES, len(x) - at)
        store_first(x, at, left, gelu(load_first(x, at, left)))


def test_exp_is_right_to_the_last_digits():
    x = torch.cat([torch.linspace(-86, 88, 100_001), torch.tensor([0.0])])
    found = x.clone()
    each_exp(found.numpy())
    torch.testing.assert_close(found, x.exp(), atol=0, rtol=5e-7)
    assert found[-1] == 1


def test_exp_takes_what_is_far_away_to_the_ends():
    ends = np.array([-np.inf, -1e9, 1e9], np.float32)
    each_exp(ends)
    assert (ends[:2] < 1e-37).all()
    assert (ends[:2] >= 0).all()
    assert np.isfinite(ends).all()


@jit()
def each_exp_64(x):
    for i in range(len(x)):
        x[i] = exp_64(x[i])


def test_exp_64_is_right_to_the_last_digits():
    x = torch.cat([torch.linspace(-699, 0, 100_001), torch.linspace(-1, 0, 10_001)]).double()
    found = x.clone()
    each_exp_64(found.numpy())
    torch.testing.assert_close(found, x.exp(), atol=0, rtol=5e-16)
    assert found[-1] == 1


def test_gelu_is_torchs():
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([0.0, -100.0, 100.0])])
    found = x.clone()
    each_gelu(found.numpy())
    torch.testing.assert_close(found, F.gelu(x.double()).float(), atol=1e-6, rtol=1e-6)


def test_layer_norm_is_torchs():
    torch.manual_seed(0)
    for width in (5, 32, 257):
        x, gain, bias = torch.randn(width) * 3 + 2, torch.randn(width), torch.randn(width)
        output = torch.empty(width)
        arrays = (array.numpy() for array in (x, gain, bias))
        layer_norm(*arrays, np.float32(1e-5), output.numpy())
        torch.testing.assert_close(output, F.layer_norm(x, (width,), gain, bias))


@pytest.mark.parametrize("size", [7, 50, 96])
def test_softmax_is_torchs_and_hides_what_is_minus_infinity(size):
    torch.manual_seed(0)
    scores = torch.randn(size) * 4
    scores[2:20:3] = -torch.inf
    found = scores.clone()
    softmax(found.numpy(), np.float32(0.7))
    torch.testing.assert_close(found, (scores * 0.7).softmax(0))
    assert (found[2:20:3] == 0).all()


@pytest.mark.parametrize("place", [3, 40])  # of whole vectors, and behind them
def test_what_is_far_below_the_largest_is_no_subnormal_number(place):
    scores = torch.zeros(41)
    scores[place] = -80
    total = exp_sum(scores.numpy(), np.float32(1))[1]
    assert scores[place] == 0
    assert total == pytest.approx(40)


@jit()
def each_log(x):
    for i in range(len(x)):
        x[i] = log(x[i])


def test_log_is_right_to_the_last_digits():
    x = torch.cat([torch.logspace(-37, 38, 100_001), torch.linspace(0.5, 2, 100_001)])
    found = x.clone()
    each_log(found.numpy())
    torch.testing.assert_close(found, x.log(), atol=1e-9, rtol=3e-7)
    one = np.ones(1, np.float32)
    each_log(one)
    assert one[0] == 0


@jit()
def narrow(x, bits):
    for i in range(len(x)):
        bits[i] = stored_in(bits, x[i])


@jit()
def widen(bits, x):
    for i in range(len(x)):
        x[i] = widened(bits[i])


def test_bfloat16_is_rounded_as_torch_rounds_it():
    all_bits = torch.arange(2**16).short()
    between = all_bits.view(torch.bfloat16).float()
    ties = (between.view(torch.int32) + 0x8000).view(torch.float32)
    x = torch.cat([between, ties, torch.randn(1000), torch.tensor([torch.nan, torch.inf, 3.4e38])])
    found = torch.empty(len(x), dtype=torch.bfloat16)
    narrow(x.numpy(), found.view(torch.uint16).numpy())
    torch.testing.assert_close(found, x.bfloat16(), atol=0, rtol=0, equal_nan=True)
    again = torch.empty(len(x))
    widen(found.view(torch.uint16).numpy(), again.numpy())
    torch.testing.assert_close(again, found.float(), atol=0, rtol=0, equal_nan=True)


def test_float32_stays_as_it_is():
    x = torch.randn(100)
    found, again = torch.empty(100), torch.empty(100)
    narrow(x.numpy(), found.numpy())
    widen(found.numpy(), again.numpy())
    assert torch.equal(found, x)
    assert torch.equal(again, x)


@jit()
def each_gelu_and_slope(x, values, slopes):
    for at in range(0, len(x), LANES):
        store(slopes, at, gelu_slope(load(x, at)))
        store(values, at, gelu(load(x, at)))


def test_gelu_of_vectors_and_its_slope_are_right_to_the_last_digits():
    x = torch.cat([torch.linspace(-9, 9, 1_000_000), torch.tensor([-1e9, -torch.inf] * 8)])
    values, slopes = torch.empty_like(x), torch.empty_like(x)
    each_gelu_and_slope(x.numpy(), values.numpy(), slopes.numpy())
    exact = x.double().requires_grad_()
    expected = F.gelu(exact)
    expected[:-16].sum().backward()
    torch.testing.assert_close(values[:-16].double(), expected[:-16].detach(), atol=7e-7, rtol=0)
    torch.testing.assert_close(slopes[:-16].double(), exact.grad[:-16], atol=7e-7, rtol=0)
    assert (values[-16::2].abs() < 1e-20).all()
    x = torch.full((LANES,), torch.nan)
    each_gelu_and_slope(x.numpy(), x.numpy(), slopes[:LANES].numpy())
    assert x.isnan().all()
    assert slopes[:LANES].isnan().all()


@jit()
def each_exp2(x):
    for at in range(0, len(x), LANES):
        store(x, at, exp2(load(x, at)))


def test_powers_of_two_of_vectors_are_right_to_the_last_digits():
    x = torch.linspace(-125, 126, 100_000)
    found = x.clone()
    each_exp2(found.numpy())
    torch.testing.assert_close(found, x.double().exp2().float(), atol=0, rtol=3e-7)
