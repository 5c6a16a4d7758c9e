import pytest
import torch
from torch import nn

from armchair.models.sequence.compiled_decoder import CompiledDecoder
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer

CONFIG = {
    "text_vocab_size": 11,
    "text_length": 5,
    "image_vocab_size": 21,
    "grid_size": 5,
    "dim": 24,
    "num_layers": 6,
    "num_heads": 3,
    "conv_kernel": 3,
}
ROWS = torch.tensor([1, 0, 0, 2, 1, 0, 2])


def make_model(**changes):
    torch.manual_seed(0)
    model = TextToImageTransformer(TextToImageConfig(**{**CONFIG, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():  # every weight has a say
            parameter.mul_(8) if parameter.ndim == 2 else parameter.add_(
                torch.randn_like(parameter) / 5
            )
    return model.eval()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def run_prompts(model, prefix=0):
    """A cache of three prompts, and what comes after them in seven rows."""
    torch.manual_seed(1)
    config = model.config
    text = torch.randint(config.text_vocab_size, (3, config.text_length))
    prime = torch.randint(config.image_vocab_size, (3, prefix))
    cache = model.new_cache(num_prompts=3)
    model.prefill(text, prime, cache)
    return cache, torch.randint(config.image_vocab_size, (len(ROWS), config.image_length))


def reference(model, cache, codes, prefix=0):
    own = cache.expand(ROWS)
    steps = range(prefix, model.config.image_length - 1)
    return torch.stack([model.image_logits(model.decode(codes[:, i], own, i)) for i in steps])


def compiled(model, cache, codes, prefix=0, rows=None, **settings):
    rows = list(range(len(ROWS)) if rows is None else rows)
    decoder = CompiledDecoder(model, cache, ROWS[rows], **settings)
    steps = range(prefix, model.config.image_length - 1)
    return torch.stack([decoder(codes[rows, i], i) for i in steps])


@pytest.mark.parametrize("attention", ["paper", "full"])
@pytest.mark.parametrize("prefix", [0, 7, 20])
def test_logits_are_those_of_the_reference(attention, prefix):
    model = make_model(attention=attention)
    cache, codes = run_prompts(model, prefix)
    expected = reference(model, cache, codes, prefix)
    found = compiled(model, cache, codes, prefix)
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 64, "num_heads": 2, "text_length": 16},  # whole panels everywhere
        {"dim": 40, "num_heads": 2},  # heads of 20
        {"dim": 6, "num_heads": 6, "num_layers": 1},  # heads of 1
        {"grid_size": 1, "num_layers": 2, "image_vocab_size": 1},
        {"grid_size": 18, "num_layers": 3, "text_length": 33, "conv_kernel": 11},
    ],
)
def test_any_shape_decodes(changes):
    model = make_model(**changes)
    cache, codes = run_prompts(model)
    if model.config.image_length == 1:
        CompiledDecoder(model, cache, ROWS)(codes[:, 0], 0)
        return
    expected = reference(model, cache, codes)
    torch.testing.assert_close(compiled(model, cache, codes), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dim", [24, 96])  # the second fills tiles, where there are any
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_fewer_bits_change_linear_layers_keys_and_values_and_nothing_else(dtype, dim):
    model = make_model(dim=dim)
    cache, codes = run_prompts(model)
    found = compiled(model, cache, codes, weight_dtype=dtype)
    exact = compiled(model, cache, codes)
    for layer in [*model.blocks.modules(), model.image_head]:
        if isinstance(layer, nn.Linear):
            scale = layer.weight.abs().amax(dim=1, keepdim=True) / 127
            layer.weight.copy_(
                (layer.weight / scale).round() * scale
                if dtype == torch.int8
                else layer.weight.to(dtype)
            )
    exact_past = reference(model, cache, codes)

    def size(x):
        return x.square().mean().sqrt()

    # What is left is that the past has the 8 bits of bfloat16, which matters less than weights do.
    assert 1e-5 < size(found - exact_past) / size(exact_past) < 4e-3
    assert size(found - exact) > 2 * size(found - exact_past)


@pytest.mark.parametrize("attention", ["paper", "full"])
def test_a_row_has_the_same_bits_in_any_batch_and_with_any_threads(attention):
    model = make_model(attention=attention)
    cache, codes = run_prompts(model)
    together = compiled(model, cache, codes)
    before = torch.get_num_threads()
    try:
        for num_threads, rows in [(1, [0]), (2, [6]), (3, [1, 2]), (2, [4, 0, 3]), (5, range(7))]:
            torch.set_num_threads(num_threads)
            found = compiled(model, cache, codes, rows=rows)
            assert torch.equal(found, together[:, list(rows)])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_row_has_the_same_bits_in_batches_of_all_sizes(dtype):
    model = make_model(dim=96)
    cache, codes = run_prompts(model)
    together = compiled(model, cache, codes, weight_dtype=dtype)
    for count in (1, 8, 9, 16, 17, 40):
        rows = [row % len(ROWS) for row in range(count)]
        found = compiled(model, cache, codes, rows=rows, weight_dtype=dtype)
        assert torch.equal(found, together[:, rows])


def test_neither_the_model_nor_the_prompts_are_written_to():
    model = make_model()
    cache, codes = run_prompts(model, prefix=3)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    buffers = [(*layer.prompts, layer.image) for layer in cache.layers]
    kept = [[buffer.clone() for buffer in layer] for layer in buffers]
    first = compiled(model, cache, codes, prefix=3)
    assert torch.equal(compiled(model, cache, codes, prefix=3), first)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    for layer, before in zip(buffers, kept, strict=True):
        assert all(map(torch.equal, layer, before))
