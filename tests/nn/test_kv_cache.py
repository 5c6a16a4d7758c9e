import pytest
import torch

from armchair.nn.attention import JointAttention
from armchair.nn.kv_cache import KVCache
from armchair.nn.masks import AttentionPattern, dense_mask, layer_patterns

KINDS = ["full", "row", "column", "convolution"]


def make_pattern(kind):
    return AttentionPattern(kind=kind, text_length=3, grid_size=4, conv_kernel=3)


def allocate(patterns, batch_size=2):
    return KVCache.allocate(patterns, batch_size=batch_size, num_heads=2, head_dim=4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_exactly_what_the_mask_allows(kind):
    pattern = make_pattern(kind)
    (layer,) = allocate([pattern]).layers
    stream = torch.arange(pattern.length).float().view(1, 1, -1, 1).expand(2, 2, -1, 4)
    layer.write(0, stream, -stream)
    for position, row in enumerate(dense_mask(pattern)):
        keys, values = layer.read(position)
        assert keys[1, 1, :, 3].tolist() == row.nonzero().flatten().tolist()
        assert torch.equal(values, -keys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [3, 7])
def test_cached_layer_equals_the_whole_stream(kind, prefix):
    torch.manual_seed(0)
    layer = JointAttention(8, num_heads=2, pattern=make_pattern(kind))
    x = torch.randn(2, 19, 8)
    (cache,) = allocate([layer.pattern]).layers
    pieces = [layer.prefill(x[:, :prefix], cache)]
    pieces += [layer.decode(x[:, i : i + 1], cache, i) for i in range(prefix, 19)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), layer(x), atol=1e-5, rtol=0)


def test_no_two_layers_share_memory():
    patterns = layer_patterns("paper", 6, text_length=3, grid_size=4, conv_kernel=3)
    cache = allocate(patterns)
    buffers = [buffer for layer in cache.layers for buffer in (layer.keys, layer.values)]
    assert len({buffer.untyped_storage().data_ptr() for buffer in buffers}) == 12
    cache.layers[0].write(0, torch.ones(2, 2, 19, 4), torch.ones(2, 2, 19, 4))
    assert all(buffer.eq(0).all() for buffer in buffers[2:])


@pytest.mark.parametrize("rows", [[0, 0, 1], [0, 1], [1]])
def test_expanded_candidates_own_their_memory(rows):
    prompt = allocate([make_pattern("row")])
    ones = torch.ones(1, 2, 3, 4)
    prompt.layers[0].write(0, torch.cat([ones, 2 * ones]), torch.cat([-ones, -2 * ones]))
    cache = prompt.expand(torch.tensor(rows))
    assert cache.layers[0].keys[:, 0, 0, 0].tolist() == [row + 1 for row in rows]
    before = prompt.layers[0].keys.clone()
    cache.layers[0].keys[0] += 5  # one candidate moves on: neither its siblings nor the prompt do
    assert torch.equal(prompt.layers[0].keys, before)
    assert cache.layers[0].keys[1:, 0, 0, 0].tolist() == [row + 1 for row in rows[1:]]


def test_writing_moves_no_buffer():
    (layer,) = allocate([make_pattern("column")]).layers
    place = layer.keys.data_ptr()
    layer.write(5, torch.ones(2, 2, 1, 4), torch.ones(2, 2, 1, 4))
    assert layer.keys.data_ptr() == place
    assert layer.keys.sum() == 2 * 2 * 4
