import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from armchair.core.errors import ConfigError
from armchair.models.sequence.text_to_image import (
    TextToImageConfig,
    TextToImageLoss,
    TextToImageTransformer,
    weighted_loss,
)

TINY = TextToImageConfig(
    text_vocab_size=11,
    text_length=5,
    image_vocab_size=7,
    grid_size=4,
    dim=16,
    num_layers=3,
    num_heads=2,
    conv_kernel=3,
)
PAPER = TextToImageConfig(
    text_vocab_size=16_384,
    text_length=256,
    image_vocab_size=8_192,
    grid_size=32,
    dim=3_968,
    num_layers=64,
    num_heads=62,
)


def build(config=TINY, seed=0, **changes):
    torch.manual_seed(seed)
    return TextToImageTransformer(dataclasses.replace(config, **changes))


def captions(*lengths, config=TINY):
    text = torch.randint(0, config.text_vocab_size, (len(lengths), config.text_length))
    padding = config.text_vocab_size + torch.arange(config.text_length)
    is_padding = torch.arange(config.text_length) >= torch.tensor(lengths)[:, None]
    return torch.where(is_padding, padding, text)


def pictures(count, config=TINY):
    return torch.randint(0, config.image_vocab_size, (count, config.image_length))


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def test_parameters_of_the_paper():
    with torch.device("meta"):
        model = TextToImageTransformer(PAPER)
    dim, layers = 3_968, 64
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    vectors = [p for p in model.blocks.parameters() if p.ndim == 1]
    assert count(matrices) == 12 * layers * dim**2 == 12_092_178_432
    # biases of 3 + 1 + 4 + 1 widths and two norms of two widths a block
    assert count(vectors) == layers * 13 * dim == 3_301_376
    assert count(model.text_embedding.parameters()) == (16_384 + 256 + 256) * dim == 67_043_328
    assert count(model.image_embedding.parameters()) == (8_192 + 32 + 32) * dim == 32_759_808
    assert count(model.norm.parameters()) == 2 * dim
    assert count(model.text_head.parameters()) == 16_385 * (dim + 1)
    assert count(model.image_head.parameters()) == 8_192 * (dim + 1)
    assert {layer.kind for layer in model.patterns} == {"row", "column", "convolution"}


@pytest.mark.parametrize("attention", ["paper", "full"])
def test_logits_are_where_they_are_needed_and_of_their_kind(attention):
    model = build(attention=attention)
    text_logits, image_logits = model(captions(5, 2), pictures(2))
    assert text_logits.shape == (2, TINY.text_length - 1, TINY.text_vocab_size + 1)
    assert image_logits.shape == (2, TINY.image_length, TINY.image_vocab_size)


@pytest.mark.parametrize("attention", ["paper", "full"])
def test_no_prediction_looks_ahead(attention):
    model = build(attention=attention, num_layers=6)
    text, codes = captions(5), pictures(1)
    text_logits, image_logits = model(text, codes)
    for position in range(1, TINY.text_length):
        other = text.clone()
        other[:, position] = (other[:, position] + 1) % TINY.text_vocab_size
        new_text_logits, new_image_logits = model(other, codes)
        assert torch.equal(new_text_logits[:, :position], text_logits[:, :position])
        assert (new_image_logits != image_logits).any(dim=-1).all()  # all of the image sees it
    for position in range(TINY.image_length):
        other = codes.clone()
        other[:, position] = (other[:, position] + 1) % TINY.image_vocab_size
        new_text_logits, new_image_logits = model(text, other)
        assert torch.equal(new_text_logits, text_logits)
        assert torch.equal(new_image_logits[:, : position + 1], image_logits[:, : position + 1])
        if position + 1 < TINY.image_length:
            assert (new_image_logits[:, position + 1] != image_logits[:, position + 1]).any()


def test_rows_of_a_batch_do_not_mix():
    model = build()
    text, codes = captions(5, 3, 1), pictures(3)
    for together, alone in zip(model(text, codes), model(text[1:2], codes[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_a_new_model_is_undecided():
    loss = build(dim=64).loss(captions(5, 5, 3, 4), pictures(4))
    assert loss.text.item() == pytest.approx(math.log(12), abs=0.15)
    assert loss.image.item() == pytest.approx(math.log(7), abs=0.15)


def test_loss_counts_real_tokens_and_the_first_padding():
    model = build()
    text, codes = captions(5, 3, 1), pictures(3)
    text_logits, image_logits = model(text, codes)
    nats = -text_logits.log_softmax(dim=-1)
    pad = TINY.text_vocab_size
    by_hand = [
        nats[0, range(4), text[0, 1:]].mean(),  # full: no padding to predict
        nats[1, range(3), [text[1, 1], text[1, 2], pad]].mean(),
        nats[2, 0, pad],
    ]
    loss = model.loss(text, codes)
    torch.testing.assert_close(loss.text, torch.stack(by_hand).mean())
    torch.testing.assert_close(loss.image, F.cross_entropy(image_logits.mT, codes))


def test_loss_of_a_batch_is_the_mean_of_its_parts():
    model = build()
    text, codes = captions(5, 1, 2, 4), pictures(4)
    drop = torch.tensor([False, False, True, False])
    whole = model.loss(text, codes, drop_condition=drop)
    first = model.loss(text[:2], codes[:2], drop_condition=drop[:2])
    second = model.loss(text[2:], codes[2:], drop_condition=drop[2:])
    for mean, a, b in zip(whole, first, second, strict=True):
        torch.testing.assert_close(mean, (a + b) / 2)


def test_a_dropped_caption_is_the_null_prompt():
    model = build()
    text, codes = captions(5, 3), pictures(2)
    everything = torch.ones(2, dtype=torch.bool)
    dropped = model.loss(text, codes, drop_condition=everything)
    null = model.loss(model.null_text(2), codes)
    assert dropped.image == null.image
    assert dropped.text == null.text == 0
    assert dropped.image != model.loss(text, codes).image
    kept = model.loss(text, codes, drop_condition=~everything)
    assert kept == model.loss(text, codes)
    weighted_loss(dropped).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_null_text_is_each_positions_own_padding():
    assert build().null_text(2).tolist() == [[11, 12, 13, 14, 15]] * 2


def test_weights_of_the_paper():
    loss = TextToImageLoss(text=torch.tensor(8.0), image=torch.tensor(16.0))
    assert weighted_loss(loss) == 1 + 14
    assert weighted_loss(loss, text_weight=0.0, image_weight=1.0) == 16


@pytest.mark.parametrize("attention", ["paper", "full"])
def test_a_gradient_reaches_every_parameter(attention):
    model = build(attention=attention)
    weighted_loss(model.loss(captions(5, 1), pictures(2))).backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_gradients_are_equal(dropout):
    text, codes = captions(5, 3), pictures(2)
    gradients = []
    for checkpoint_activations in (False, True):
        model = build(dropout=dropout, checkpoint_activations=checkpoint_activations)
        torch.manual_seed(1)
        weighted_loss(model.loss(text, codes)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        assert torch.equal(kept, recomputed)


def test_dropout_acts_in_training_only():
    model = build(dropout=0.5)
    text, codes = captions(5), pictures(1)
    assert model.loss(text, codes).image != model.loss(text, codes).image
    model.eval()
    assert model.loss(text, codes).image == model.loss(text, codes).image


def test_residual_projections_start_smaller():
    model = build(dim=128, num_layers=8, num_heads=4)
    for block in model.blocks:
        assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.mlp.hidden.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for projection in (block.attention.projection, block.mlp.projection):
            assert projection.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert model.image_embedding.token.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.image_head.bias.any()


def test_autocast_keeps_logits_in_float32_and_near():
    model = build()
    text, codes = captions(5, 3), pictures(2)
    exact = model(text, codes)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(text, codes)
        weighted_loss(model.loss(text, codes)).backward()
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("attention", ["paper", "full"])
def test_one_batch_is_learnt_by_heart(attention):
    model = build(attention=attention, dim=32, num_layers=2)
    text, codes = captions(5, 5, 3, 4), pictures(4)
    text[:, 0] = torch.arange(4)  # what is given, not predicted, tells the captions apart
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        weighted_loss(model.loss(text, codes)).backward()
        optimizer.step()
    loss = model.loss(text, codes)
    assert loss.text < 0.1
    assert loss.image < 0.1


def test_weights_travel_without_masks_or_buffers():
    model = build(seed=0)
    twin = build(seed=1)
    assert not list(model.buffers())
    twin.load_state_dict(model.state_dict())
    text, codes = captions(4), pictures(1)
    assert torch.equal(model(text, codes)[1], twin(text, codes)[1])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dim", 15, "multiple of num_heads = 2"),
        ("num_layers", 0, "at least 1"),
        ("image_vocab_size", -3, "at least 1"),
        ("conv_kernel", 4, "odd"),
        ("dropout", 1.0, "less than 1"),
        ("dropout", math.nan, "less than 1"),
    ],
)
def test_configs_that_make_no_sense(field, value, message):
    with pytest.raises(ConfigError, match=f"(?s){field}.*{message}"):
        dataclasses.replace(TINY, **{field: value})
