import pytest
import torch

from armchair.nn.attention import JointAttention
from armchair.nn.kv_cache import KVCache, Sharing, plain_slots, slots_of
from armchair.nn.masks import AttentionPattern, dense_mask, layer_patterns

KINDS = ["full", "row", "column", "convolution"]
CPU = torch.device("cpu")


def make_pattern(kind, grid_size=4, conv_kernel=3):
    return AttentionPattern(kind=kind, text_length=3, grid_size=grid_size, conv_kernel=conv_kernel)


def allocate(patterns, num_prompts=2):
    return KVCache.allocate(patterns, num_prompts=num_prompts, num_heads=2, head_dim=4)


# Slots


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("grid_size", "conv_kernel"), [(4, 3), (5, 1), (3, 11), (12, 11), (1, 3)])
def test_a_token_reads_exactly_what_the_mask_allows(kind, grid_size, conv_kernel):
    pattern = make_pattern(kind, grid_size, conv_kernel)
    slots = slots_of(pattern, CPU)
    kept = torch.full((slots.count,), -1)
    for index, row in enumerate(dense_mask(pattern)[3:, 3:]):
        kept[slots.of[index]] = index
        assert kept[slots.read[index]].sort().values.tolist() == row.nonzero().flatten().tolist()


def test_what_rows_and_columns_read_lies_side_by_side():
    for kind in ("full", "row", "column"):
        assert all(isinstance(seen, slice) for seen in slots_of(make_pattern(kind), CPU).read)


def test_rows_and_kernels_keep_their_windows_alone():
    counts = [slots_of(make_pattern(kind, 12, 5), CPU).count for kind in KINDS]
    assert counts == [144, 13, 144, 2 * 12 + 2 + 1]


def test_a_plain_stream_sees_all_that_came_before():
    slots = plain_slots(3)
    assert [list(range(3))[seen] for seen in slots.read] == [[0], [0, 1], [0, 1, 2]]
    assert list(slots.of) == [0, 1, 2]


# Layers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [3, 4, 7, 12])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_cached_layer_equals_the_whole_stream(kind, prefix, as_tensors):
    torch.manual_seed(0)
    layer = JointAttention(8, num_heads=2, pattern=make_pattern(kind))
    x = torch.randn(2, 19, 8)
    (cache,) = allocate([layer.pattern]).layers
    pieces = [layer.prefill(x[:, :prefix], cache)]
    numbers = torch.arange(16).split(1) if as_tensors else range(16)
    pieces += [layer.decode(x[:, 3 + i : 4 + i], cache, numbers[i]) for i in range(prefix - 3, 16)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), layer(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[0] * 8, [0, 1], [1, 0, 0, 1, 1], [0] * 8 + [1] * 16, [1] * 3])
def test_candidates_that_share_prompts_go_on_as_by_themselves(kind, rows):
    torch.manual_seed(0)
    layer = JointAttention(8, num_heads=2, pattern=make_pattern(kind))
    prompts, images = torch.randn(2, 3, 8), torch.randn(len(rows), 16, 8)
    cache = allocate([layer.pattern])
    layer.prefill(prompts, cache.layers[0])
    (expanded,) = cache.expand(torch.tensor(rows)).layers
    drawn = [layer.decode(images[:, i : i + 1], expanded, i) for i in range(16)]
    expected = layer(torch.cat([prompts[rows], images], dim=1))[:, 3:]
    torch.testing.assert_close(torch.cat(drawn, dim=1), expected, atol=1e-5, rtol=0)


def test_no_two_layers_share_memory():
    patterns = layer_patterns("paper", 6, text_length=3, grid_size=4, conv_kernel=3)
    cache = allocate(patterns)
    buffers = [buffer for layer in cache.layers for buffer in (*layer.prompts, layer.image)]
    assert len({buffer.untyped_storage().data_ptr() for buffer in buffers}) == 12
    cache.layers[0].write(torch.ones(2, 2, 2, 19, 4))
    assert all(buffer.eq(0).all() for buffer in buffers[2:])


@pytest.mark.parametrize("rows", [[0, 0, 1], [0, 1], [1]])
def test_expanded_candidates_own_what_is_theirs(rows):
    prompts = allocate([make_pattern("row")])
    tokens = torch.arange(1.0, 3).view(2, 1, 1, 1).expand(2, 2, 5, 4)  # two of them of the image
    prompts.layers[0].write(torch.stack([tokens, -tokens]))
    cache = prompts.expand(torch.tensor(rows))
    image = cache.layers[0].image
    assert image[0, :, 0, 1, 0].tolist() == [row + 1 for row in rows]
    before = prompts.layers[0].image.clone()
    image[:, 0] += 5  # one candidate moves on: neither its siblings nor the prompt do
    assert torch.equal(prompts.layers[0].image, before)
    assert image[0, 1:, 0, 1, 0].tolist() == [row + 1 for row in rows[1:]]


def test_writing_moves_no_buffer():
    (layer,) = allocate([make_pattern("column")]).layers
    place = layer.image.data_ptr()
    layer.append(5, torch.ones(2, 2, 2, 4))
    assert layer.image.data_ptr() == place
    assert layer.image.sum() == 2 * 2 * 2 * 4


def test_a_prompt_is_kept_once_however_many_are_drawn_from_it():
    patterns = layer_patterns("paper", 4, text_length=3, grid_size=4, conv_kernel=3)
    prompts = allocate(patterns, num_prompts=8)  # of which one is drawn from
    one, many = (
        prompts.expand(torch.zeros(count, dtype=torch.long)).num_bytes for count in (1, 64)
    )
    own = (
        8 * 2 * 4 * (5 + 16 + 5 + 6)
    )  # keys and values of 2 heads of 4, in row, column, row, convolution
    assert one == own + 8 * 2 * 4 * 4 * 3
    assert many == 64 * own + 8 * 2 * 4 * 4 * 3


# Sharing


def test_rows_are_put_together_by_prompt_and_come_back():
    rows = torch.tensor([2, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0])
    sharing = Sharing(rows, 4)
    assert [prompts.tolist() for prompts in sharing.prompts] == [[0], [1, 2]]
    x = torch.randn(12, 2, 5)
    nine, few = sharing.split(x)
    assert nine.shape == (1, 16, 2, 5)
    assert few.shape == (2, 8, 2, 5)
    assert torch.equal(nine[0, 0], x[1])
    assert torch.equal(few[1, 1], x[3])
    assert torch.equal(sharing.join([nine, few]), x)


@pytest.mark.parametrize("rows", [[0] * 8, [0] * 8 + [1] * 8, [0] * 8 + [1] * 16])
def test_rows_in_order_come_back_too(rows):
    sharing, x = Sharing(torch.tensor(rows), 2), torch.randn(len(rows), 2, 5)
    assert torch.equal(sharing.join(sharing.split(x)), x)
