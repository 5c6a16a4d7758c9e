import pytest
import torch
from torch import nn
from torch.nn import functional as F

from armchair.nn.blocks import TransformerBlock
from armchair.nn.fused import add_bias, add_norm, bias_gelu, is_fused
from armchair.nn.masks import AttentionPattern

ROWS = [(1,), (2, 37), (70,)]
DTYPES = [torch.float32, torch.bfloat16]


def autocast(dtype):
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def gradients(outputs, weights, inputs):
    total = sum(
        (output.double() * weight).sum() for output, weight in zip(outputs, weights, strict=True)
    )
    return torch.autograd.grad(total, inputs)


def compare(fused, reference, inputs, weights, dtype):
    """Outputs and gradients of float32 and of float64; bfloat16 rounds what goes in and out."""
    with autocast(dtype):
        outputs = fused(*inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = reference(*exact)
    found = [*outputs, *gradients(outputs, weights, inputs)]
    wanted = [*expected, *gradients(expected, weights, exact)]
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for got, right in zip(found, wanted, strict=True):
        assert got.shape == right.shape
        scale = right.detach().square().mean().sqrt().clamp(min=0.1)
        error = (got.double() - right).detach().abs().max() / scale
        assert error < tolerance * right.numel() ** 0.25


def random_inputs(*shapes):
    torch.manual_seed(0)
    return [(torch.randn(shape) * 2).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dim", [5, 24, 256])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_branch", [True, False])
def test_add_norm_is_a_sum_and_layer_norm(rows, dim, dtype, with_branch):
    norm = nn.LayerNorm(dim)
    x, branch, bias, gain, shift = random_inputs((*rows, dim), (*rows, dim), (dim,), (dim,), (dim,))
    weights = torch.randn(2, *rows, dim).double()

    def fused(x, gain, shift, *added):
        with torch.no_grad():
            norm.weight, norm.bias = nn.Parameter(gain), nn.Parameter(shift)
        norm._parameters.update(weight=gain, bias=shift)
        branch, bias = added or (None, None)
        sums, normed = add_norm(x, None if branch is None else branch.to(dtype), bias, norm)
        assert (sums.dtype, normed.dtype) == (torch.float32, dtype)
        return sums, normed

    def reference(x, gain, shift, *added):
        sums = x + (added[0] + added[1]) if added else x
        return sums, F.layer_norm(sums, (dim,), gain, shift, norm.eps)

    inputs = [x, gain, shift, *((branch, bias) if with_branch else ())]
    compare(fused, reference, inputs, weights, dtype)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_bias_is_two_sums(rows, dtype):
    inputs = random_inputs((*rows, 24), (*rows, 24), (24,))
    weights = torch.randn(1, *rows, 24).double()
    compare(
        lambda x, branch, bias: (add_bias(x, branch.to(dtype), bias),),
        lambda x, branch, bias: (x + branch + bias,),
        inputs,
        weights,
        dtype,
    )


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_gelu_is_gelu_of_a_sum(rows, dtype):
    inputs = random_inputs((*rows, 40), (40,))
    weights = torch.randn(1, *rows, 40).double()
    compare(
        lambda x, bias: (bias_gelu(x.to(dtype), bias),),
        lambda x, bias: (F.gelu(x + bias),),
        inputs,
        weights,
        dtype,
    )


@pytest.mark.parametrize("only", ["sums", "normed"])
def test_one_of_both_may_be_all_that_is_used(only):
    norm = nn.LayerNorm(24)
    x, branch, bias = random_inputs((3, 24), (3, 24), (24,))
    part = ["sums", "normed"].index(only)
    weights = torch.randn(1, 3, 24).double()
    compare(
        lambda *inputs: (add_norm(*inputs, norm)[part],),
        lambda x, branch, bias: (
            (x + branch + bias, F.layer_norm(x + branch + bias, (24,)))[part],
        ),
        [x, branch, bias],
        weights,
        torch.float32,
    )


def block_of(activation="gelu", visible=None, dropout=0.0):
    torch.manual_seed(0)
    visible = visible or AttentionPattern(kind="row", text_length=3, grid_size=4)
    block = TransformerBlock(
        24, num_heads=2, pattern=visible, activation=activation, dropout=dropout
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) / 5)
    return block


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("visible", [None, "causal", "all"])
def test_a_block_that_learns_is_the_block_that_draws(activation, visible):
    block = block_of(activation, visible)
    x = torch.randn(2, 19, 24, requires_grad=True)
    weights = torch.randn(2, 19, 24).double()
    assert is_fused(x)
    reference = block_of(activation, visible).double()
    assert not is_fused(x.double())
    parameters, exact = list(block.parameters()), list(reference.parameters())
    inputs = x.detach().double().requires_grad_()
    outputs, expected = block(x), reference(inputs)
    found = gradients([outputs], [weights], [x, *parameters])
    wanted = gradients([expected], [weights], [inputs, *exact])
    torch.testing.assert_close(outputs.double(), expected, atol=1e-5, rtol=1e-5)
    for got, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.double(), right, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert not is_fused(x)
        torch.testing.assert_close(block(x), outputs, atol=1e-5, rtol=1e-5)


def test_dropout_still_drops():
    block, x = block_of(dropout=0.5), torch.randn(1, 19, 24)
    assert not torch.equal(block(x), block(x))
    torch.testing.assert_close(block.eval()(x), block_of().eval()(x))


def test_sums_over_rows_have_the_same_bits_whatever_the_threads():
    norm = nn.LayerNorm(24)
    x, branch, bias = random_inputs((130, 24), (130, 24), (24,))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            normed = add_norm(x, branch, bias, norm)[1]
            activated = add_bias(x, bias_gelu(normed, bias), bias)
            found.append(torch.autograd.grad(activated.sum(), [x, branch, bias, norm.weight]))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))
