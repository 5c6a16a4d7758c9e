import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from armchair.core.errors import ConfigError
from armchair.nn.amx import has_amx
from armchair.nn.attention import JointAttention, attend, dense_attention
from armchair.nn.blocked_attention import block_plan, blocked_attention, tile_plan
from armchair.nn.masks import AttentionPattern, dense_mask, plan_order

KINDS = ["full", "row", "column", "convolution"]


def make_pattern(kind, text_length=3, grid_size=6, conv_kernel=5):
    return AttentionPattern(
        kind=kind, text_length=text_length, grid_size=grid_size, conv_kernel=conv_kernel
    )


def from_the_definition(qkv, pattern, num_heads):
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    mask = dense_mask(pattern)[: qkv.shape[1], : qkv.shape[1]]
    outputs = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v
    return outputs.transpose(1, 2).flatten(2)


def run(attend, qkv, weights):
    qkv = qkv.clone().requires_grad_()
    outputs = attend(qkv)
    (outputs * weights).sum().backward()
    return outputs.detach(), qkv.grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [2, 11, 39])
def test_dense_attention_is_the_definition(kind, length):
    pattern = make_pattern(kind)
    qkv = torch.randn(2, length, 3 * 8)
    expected = from_the_definition(qkv, pattern, num_heads=2)
    torch.testing.assert_close(
        dense_attention(qkv, pattern, num_heads=2), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text_length", "grid_size"), [(3, 6), (1, 1), (16, 4), (40, 9), (7, 16)])
@pytest.mark.parametrize("head_dim", [4, 16, 40])
def test_blocked_equals_dense_forward_and_backward(kind, text_length, grid_size, head_dim):
    pattern = make_pattern(kind, text_length, grid_size)
    qkv = torch.randn(2, pattern.length, 3 * 3 * head_dim)
    weights = torch.randn(2, pattern.length, 3 * head_dim)
    fast = run(lambda x: blocked_attention(x, pattern, num_heads=3), qkv, weights)
    reference = run(lambda x: from_the_definition(x, pattern, 3), qkv.double(), weights)
    for got, expected in zip(fast, reference, strict=True):
        torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=0)


def test_blocked_has_the_same_bits_whatever_the_threads_and_the_batch():
    pattern = make_pattern("row", text_length=5, grid_size=8)
    qkv, weights = torch.randn(3, pattern.length, 3 * 16), torch.randn(3, pattern.length, 16)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(run(lambda x: blocked_attention(x, pattern, num_heads=2), qkv, weights))
    finally:
        torch.set_num_threads(threads)
    found.append(
        tuple(
            torch.cat(parts)
            for parts in zip(
                *(
                    run(lambda x: blocked_attention(x, pattern, num_heads=2), *one)
                    for one in zip(qkv.split(1), weights.split(1), strict=True)
                ),
                strict=True,
            )
        )
    )
    for other in found[1:]:
        assert torch.equal(found[0][0], other[0])
        assert torch.equal(found[0][1], other[1])


def test_blocked_stays_finite_at_large_scores():
    pattern = make_pattern("column", text_length=2, grid_size=4)
    qkv = 100 * torch.randn(1, pattern.length, 3 * 8)
    weights = torch.ones(1, pattern.length, 8)
    fast = run(lambda x: blocked_attention(x, pattern, num_heads=1), qkv, weights)
    reference = run(lambda x: from_the_definition(x, pattern, 1), qkv.double(), weights)
    assert fast[1].isfinite().all()
    # Scores of 10,000 are known to a thousandth, and weights then as well.
    torch.testing.assert_close(fast[0].double(), reference[0], atol=0.5, rtol=0)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_what_is_no_number_stays_none(part):
    pattern = make_pattern("row", text_length=4, grid_size=4)
    qkv = torch.randn(1, pattern.length, 3, 8)
    qkv[0, 7, ["query", "key", "value"].index(part)] = torch.nan
    outputs = blocked_attention(qkv.flatten(2), pattern, num_heads=1)
    expected = [7] if part == "query" else range(7, 12)  # a row's window, itself and four more
    assert outputs[0, expected].isnan().any(1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text_length", "grid_size"), [(3, 16), (20, 7)])
def test_blocks_hold_the_dense_mask_and_little_else(kind, text_length, grid_size):
    pattern = make_pattern(kind, text_length, grid_size)
    order, blocks, masks = block_plan(pattern)
    found = torch.zeros(len(order), len(order), dtype=torch.bool)
    for start, count, text, first, others, begin in blocks:
        assert text % 16 == first % 16 == others % 16 == 0
        mask = torch.from_numpy(masks[begin : begin + count * (text + others)]) == 0
        seen = [*range(text), *range(first, first + others)]
        found[start : start + count, seen] = mask.view(count, -1)
    real = torch.from_numpy(order) >= 0
    in_order = plan_order(pattern)
    assert torch.equal(torch.from_numpy(order)[real], in_order)
    assert torch.equal(found[real][:, real], dense_mask(pattern)[in_order][:, in_order])
    assert not found[:, ~real].any()
    if kind in ("row", "column"):  # most of the image is never multiplied
        assert max(blocks[:, 4]) <= 16 + 16 + grid_size


@pytest.mark.parametrize("kind", KINDS)
def test_blocked_in_bfloat16_rounds_what_goes_out_and_nothing_else(kind):
    pattern = make_pattern(kind, text_length=5, grid_size=12)
    qkv = torch.randn(2, pattern.length, 3 * 16).bfloat16()
    weights = torch.randn(2, pattern.length, 16).bfloat16()

    def blocked(x):
        return blocked_attention(x, pattern, num_heads=2)

    in_bfloat16, in_float32 = run(blocked, qkv, weights), run(blocked, qkv.float(), weights.float())
    for got, expected in zip(in_bfloat16, in_float32, strict=True):
        assert torch.equal(got, expected.bfloat16())


needs_amx = pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")


@needs_amx
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text_length", "grid_size"), [(3, 6), (1, 1), (16, 4), (40, 9), (64, 16), (7, 20)]
)
@pytest.mark.parametrize("head_dim", [32, 96])
def test_tiles_are_as_near_as_the_library_in_bfloat16(kind, text_length, grid_size, head_dim):
    pattern = make_pattern(kind, text_length, grid_size)
    qkv = torch.randn(2, pattern.length, 3 * 3 * head_dim).bfloat16()
    weights = torch.randn(2, pattern.length, 3 * head_dim).bfloat16()

    def library(x):
        q, k, v = x.unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
        mask = dense_mask(pattern)
        outputs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return outputs.transpose(1, 2).flatten(2)

    tiled = run(lambda x: blocked_attention(x, pattern, num_heads=3), qkv, weights)
    theirs = run(library, qkv, weights)
    reference = run(lambda x: from_the_definition(x, pattern, 3), qkv.double(), weights)
    for got, other, expected in zip(tiled, theirs, reference, strict=True):
        error, others_error = (one - expected for one in (got, other))
        assert error.abs().max() < 0.01 * expected.abs().max()
        assert error.square().mean() < 2 * others_error.square().mean()


@needs_amx
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_have_the_same_bits_whatever_the_threads_and_the_batch(kind):
    pattern = make_pattern(kind, text_length=5, grid_size=8)
    qkv = torch.randn(3, pattern.length, 3 * 64).bfloat16()
    weights = torch.randn(3, pattern.length, 64).bfloat16()

    def tiled(x, w):
        return run(lambda x: blocked_attention(x, pattern, num_heads=2), x, w)

    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(tiled(qkv, weights))
    finally:
        torch.set_num_threads(threads)
    alone = [tiled(*one) for one in zip(qkv.split(1), weights.split(1), strict=True)]
    found.append(tuple(torch.cat(parts) for parts in zip(*alone, strict=True)))
    for other in found[1:]:
        assert torch.equal(found[0][0], other[0])
        assert torch.equal(found[0][1], other[1])


@needs_amx
def test_tiles_add_a_bias_and_give_its_gradient():
    pattern = make_pattern("row", text_length=5, grid_size=8)
    qkv, bias = torch.randn(2, pattern.length, 3 * 64).bfloat16(), torch.randn(3 * 64)
    weights, found = torch.randn(2, pattern.length, 64), []
    for attention, dtype in ((blocked_attention, torch.bfloat16), (None, torch.float64)):
        given = bias.clone().requires_grad_()
        if attention is None:
            outputs = from_the_definition(qkv.to(dtype) + given, pattern, 2)
        else:
            outputs = attention(qkv, pattern, num_heads=2, bias=given)
        (outputs * weights).sum().backward()
        found.append((outputs.detach().double(), given.grad.double()))
    for got, expected in zip(*found, strict=True):
        assert (got - expected).abs().max() < 0.01 * expected.abs().max()


@needs_amx
def test_tiles_stay_finite_at_large_scores():
    pattern = make_pattern("column", text_length=2, grid_size=4)
    qkv = (100 * torch.randn(1, pattern.length, 3 * 32)).bfloat16()
    weights = torch.ones(1, pattern.length, 32)
    tiled = run(lambda x: blocked_attention(x, pattern, num_heads=1), qkv, weights)
    reference = run(lambda x: from_the_definition(x, pattern, 1), qkv.double(), weights)
    assert tiled[1].isfinite().all()
    torch.testing.assert_close(tiled[0].double(), reference[0], atol=1, rtol=0.02)


@needs_amx
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text_length", "grid_size"), [(3, 16), (20, 7)])
def test_tiles_hold_the_dense_mask(kind, text_length, grid_size):
    pattern = make_pattern(kind, text_length, grid_size)
    order, blocks, bits = tile_plan(pattern)
    found = torch.zeros(len(order), len(order), dtype=torch.bool)
    for start, text, first, others, begin in blocks:
        assert text % 32 == first % 32 == others % 32 == 0
        seen = [*range(text), *range(first, first + others)]
        for half in range(2):
            words = bits[begin + half * len(seen) : begin + (half + 1) * len(seen)]
            sees = (words[None, :] >> np.arange(16)[:, None]) & 1
            rows = slice(start + half * 16, start + (half + 1) * 16)
            found[rows, seen] = torch.from_numpy(sees == 1)
    real, in_order = torch.from_numpy(order) >= 0, plan_order(pattern)
    assert torch.equal(found[real][:, real], dense_mask(pattern)[in_order][:, in_order])
    assert not found[:, ~real].any()
    assert not found[~real].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_layer_keeps_its_dtype(dtype):
    layer, reference = attention_layer("row").to(dtype), attention_layer("row").double()
    x = torch.randn(2, 19, 8)
    outputs = layer(x.to(dtype))
    assert outputs.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(outputs.double(), reference(x.double()), atol=tolerance, rtol=0)


def attention_layer(kind, dim=8):
    torch.manual_seed(0)
    return JointAttention(dim, num_heads=2, pattern=make_pattern(kind, grid_size=4))


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_reacts_to_what_it_sees_and_to_nothing_else(kind):
    layer = attention_layer(kind)
    x = torch.randn(1, 19, 8)
    changed_by = torch.zeros(19, 19, dtype=torch.bool)
    before = layer(x)
    for position in range(19):
        other = x.clone()
        other[:, position] += 1
        changed_by[:, position] = (layer(other) != before).any(dim=-1)[0]
    assert torch.equal(changed_by, dense_mask(layer.pattern))


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_is_its_projections_around_the_reference(kind):
    layer = attention_layer(kind)
    x = torch.randn(2, 19, 8)
    expected = layer.projection(from_the_definition(layer.qkv(x), layer.pattern, 2))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def test_rows_of_a_batch_do_not_mix():
    layer = attention_layer("row")
    x = torch.randn(3, 19, 8)
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]), atol=1e-6, rtol=0)


def test_layers_share_no_parameters_and_masks_are_no_state():
    layers = nn.ModuleList([attention_layer("row"), attention_layer("row")])
    pointers = [tensor.data_ptr() for tensor in layers.state_dict().values()]
    assert len(set(pointers)) == len(pointers) == 8


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="num_heads = 3"):
        JointAttention(8, num_heads=3, pattern=make_pattern("full"))


@pytest.mark.parametrize("visible", ["causal", "all"])
def test_a_plain_stream_sees_its_past_or_everything(visible):
    qkv = torch.randn(2, 5, 3 * 8)
    q, k, v = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    scores = q @ k.mT / 2
    if visible == "causal":
        scores = scores.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), float("-inf"))
    expected = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(
        dense_attention(qkv, visible, num_heads=2), expected, atol=1e-5, rtol=0
    )
    layer = JointAttention(8, num_heads=2, pattern=visible)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(
        layer(x), layer.projection(dense_attention(layer.qkv(x), visible, num_heads=2))
    )


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("num_keys", [9, 14])
def test_plain_products_equal_the_library_forward_and_backward(is_causal, num_keys):
    if is_causal:
        num_keys = 9  # as many as queries
    heads = [torch.randn(2, 3, n, 4, requires_grad=True) for n in (9, num_keys, num_keys)]
    weights = torch.randn(2, 3, 9, 4)

    def outputs_and_gradients(function):
        outputs = function(*heads, is_causal=is_causal)
        return outputs, *torch.autograd.grad((outputs * weights).sum(), heads)

    plain = outputs_and_gradients(attend)
    library = outputs_and_gradients(F.scaled_dot_product_attention)
    for got, expected in zip(plain, library, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    with torch.no_grad():  # drawing keeps nothing for a backward pass
        torch.testing.assert_close(attend(*heads, is_causal=is_causal), plain[0], atol=1e-5, rtol=0)


def test_attention_keeps_the_dtype_under_autocast():
    heads = [torch.randn(1, 1, 5, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(*heads).dtype == torch.bfloat16
