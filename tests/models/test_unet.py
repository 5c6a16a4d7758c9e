import dataclasses
import json

import pytest
import torch

import contracts
from armchair.core.config import from_dict, to_dict
from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import guide
from armchair.diffusion.process import ProcessConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNet, UNetConfig
from armchair.nn.resampling import resize

PLAIN = UNetConfig(
    image_size=8,
    channels=8,
    multipliers=(1, 2),
    num_blocks=1,
    process=ProcessConfig(num_timesteps=20),
)
TEXT_CONFIG = TextStreamConfig(vocab_size=11, text_length=5, dim=16, num_layers=1, num_heads=2)
ATTENTIVE = dataclasses.replace(PLAIN, attention_sizes=(4,), head_dim=4)
GLIDE = dataclasses.replace(ATTENTIVE, text=TEXT_CONFIG)
DECODER = dataclasses.replace(
    GLIDE, embedding_dim=6, process=ProcessConfig(num_timesteps=20, learned_variance=True)
)
UPSAMPLER = dataclasses.replace(PLAIN, low_size=2)
PATCHED = dataclasses.replace(DECODER, patch_size=2, attention_sizes=(2,))
KINDS = {
    "ddpm": ATTENTIVE,
    "glide": GLIDE,
    "decoder": DECODER,
    "upsampler": UPSAMPLER,
    "patched decoder": PATCHED,
    "patched upsampler": dataclasses.replace(UPSAMPLER, patch_size=2),
}

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0, 7, 19])
GIVEN = {
    "text": torch.tensor([[1, 2, 3, 14, 15], [4, 5, 6, 7, 8], [9, 12, 13, 14, 15]]),
    "embedding": torch.nn.functional.normalize(X.flatten(1)[:, :6], dim=1),
    "low": X[:, :, :2, :2].clamp(-1, 1),
}

PAPER = UNetConfig(
    image_size=64,
    channels=512,
    multipliers=(1, 2, 3, 4),
    num_blocks=3,
    process=ProcessConfig(learned_variance=True),
    attention_sizes=(32, 16, 8),
    head_dim=64,
    dropout=0.1,
    text=TextStreamConfig(
        vocab_size=49_407, text_length=256, dim=2048, num_layers=24, num_heads=32
    ),
    embedding_dim=1024,
)
FIRST_UPSAMPLER = UNetConfig(
    image_size=256,
    low_size=64,
    channels=320,
    multipliers=(1, 2, 3, 4),
    num_blocks=3,
    process=ProcessConfig(),
    dropout=0.1,
)
SECOND_UPSAMPLER = UNetConfig(
    image_size=1024,
    low_size=256,
    channels=192,
    multipliers=(1, 1, 2, 2, 4, 4),
    num_blocks=2,
    process=ProcessConfig(schedule="linear"),
)


def wake(model):
    """Random numbers where a new model has zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise)
    return model


def build(config):
    return wake(contracts.seeded(lambda: UNet(config)))


def given(config, rows=slice(None)):
    return {name: GIVEN[name][rows] for name in config.condition_names}


def run(model, x=X, t=T, rows=slice(None)):
    return model(x[rows], t[rows], model.encode(given(model.config, rows)))


# Sizes


@pytest.mark.parametrize(
    ("config", "count", "printed", "within"),
    [
        (PAPER, 3_563_693_574, 3.5e9, 0.05),
        (FIRST_UPSAMPLER, 729_702_083, 700e6, 0.05),
        (SECOND_UPSAMPLER, 282_059_139, 300e6, 0.065),
    ],
    ids=["decoder", "first upsampler", "second upsampler"],
)
def test_parameters_of_the_paper(config, count, printed, within):
    """Table 3; the module's docstring says why the last differs by more than 5%."""
    with torch.device("meta"):
        model = UNet(config)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == count
    assert found == pytest.approx(printed, rel=within)


def test_glide_shares_its_parameters_between_picture_and_text():
    """3.5 billion: 2.3 for the picture, 1.2 for the text (section 4 of GLIDE)."""
    with torch.device("meta"):
        model = UNet(dataclasses.replace(PAPER, embedding_dim=None))
    text = sum(p.numel() for p in model.text.blocks.parameters())
    everything = sum(p.numel() for p in model.parameters())
    of_text = sum(p.numel() for p in model.text.parameters())
    assert text == pytest.approx(1.2e9, rel=0.01)
    assert everything - of_text == pytest.approx(2.3e9, rel=0.05)


def test_upsamplers_have_no_attention():
    assert not any("attention" in name for name, _ in build(UPSAMPLER).named_parameters())


# What it computes


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_model_says_nothing(kind):
    model = UNet(KINDS[kind])
    out = run(model)
    assert out.shape == (3, 6 if "decoder" in kind else 3, 8, 8)
    assert not out.any()


@pytest.mark.parametrize("kind", KINDS)
def test_contracts(kind, tmp_path):
    config = KINDS[kind]
    model = build(config)
    contracts.gradient_reaches_every_parameter(model, run(model).square().sum())
    model.eval()
    alone = torch.cat([run(model, rows=slice(row, row + 1)) for row in range(3)])
    torch.testing.assert_close(run(model), alone, atol=1e-5, rtol=1e-5)
    contracts.saves_and_loads(lambda: build(config), run, tmp_path / "state")


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_it_is_told_counts_for_every_pixel(kind):
    model = build(KINDS[kind])
    out = run(model)
    assert (run(model, t=(T + 1) % 20) != out).any(dim=1).float().mean() > 0.9
    for name in model.config.condition_names:
        other = given(model.config)
        other[name] = other[name].roll(1, dims=0)
        changed = (model(X, T, model.encode(other)) != out).any(dim=1)
        assert changed.float().mean() > (0.9 if name != "low" else 0.5), name


def test_patches_are_folded_before_the_first_level_and_unfolded_after_the_last():
    """A patch of 2x2 pixels is 12 channels of one place, and its prediction too."""
    model = build(dataclasses.replace(PATCHED, embedding_dim=None, text=None)).eval()
    assert model.stem.weight.shape[1] == 4 * 3
    assert model.head.weight.shape[0] == 4 * 6
    seen = {}
    model.stem.register_forward_hook(lambda _, inputs, out: seen.update(stem=inputs[0]))
    model.head.register_forward_hook(lambda _, inputs, out: seen.update(head=out))
    out = model(X, T, {})
    for row, column in ((0, 0), (5, 2)):
        place = (slice(None), slice(None), row // 2, column // 2)
        part = 2 * (row % 2) + column % 2
        torch.testing.assert_close(seen["stem"][place][:, part::4], X[:, :, row, column])
        torch.testing.assert_close(seen["head"][place][:, part::4], out[:, :, row, column])


def test_patches_leave_levels_of_a_smaller_side():
    assert DECODER.sides == [8, 4]
    assert PATCHED.sides == [4, 2]
    assert PATCHED.side_multiple == 4


def test_attention_carries_what_a_far_pixel_shows():
    """Without it, a picture's far corner is out of the convolutions' reach."""
    wide = dataclasses.replace(PLAIN, image_size=64, multipliers=(1, 1))
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    for sizes, seen in (((), False), ((32,), True)):
        model = build(dataclasses.replace(wide, attention_sizes=sizes, head_dim=4))
        # A norm's mean and variance are of the whole picture: hold them.
        for module in model.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda input: input
        (gradient,) = torch.autograd.grad(model(x, T[:1], {})[0, 0, 0, 0], x)
        assert bool(gradient[0, :, -1, -1].any()) == seen


def test_embeddings_are_four_tokens_after_the_captions():
    model = build(DECODER)
    encoded = model.encode(given(DECODER))
    assert encoded["context"].shape == (3, 5 + 4, 16)
    states = model.text(GIVEN["text"])
    torch.testing.assert_close(encoded["context"][:, :5], states)
    scaled = GIVEN["embedding"] * 6**0.5
    tokens = model.embedding_tokens(scaled).view(3, 4, 16)
    torch.testing.assert_close(encoded["context"][:, 5:], tokens)
    vector = model.text_vector(states[:, -1]) + model.embedding_vector(scaled)
    torch.testing.assert_close(encoded["vector"], vector)


def test_an_upsampler_lays_the_enlarged_picture_beside():
    model = build(UPSAMPLER)
    encoded = model.encode(given(UPSAMPLER))
    assert torch.equal(encoded["low"], resize(GIVEN["low"], 8))
    larger = resize(GIVEN["low"], 4)
    assert model.encode({"low": larger})["low"].shape[-1] == 16  # four times whatever it gets
    assert model(torch.zeros(3, 3, 16, 16), T, model.encode({"low": larger})).shape[-1] == 16


def test_what_stands_for_nothing():
    model, decoder = build(UPSAMPLER), build(DECODER)
    assert torch.equal(model.null(given(UPSAMPLER))["low"], GIVEN["low"])
    nulls = decoder.null(given(DECODER))
    assert nulls["text"].tolist() == [[11, 12, 13, 14, 15]] * 3
    assert not nulls["embedding"].any()
    assert nulls["embedding"].shape == (3, 6)


def test_it_can_be_guided_and_its_null_branch_sees_x_t():
    model = build(DECODER).eval()
    condition = model.encode(given(DECODER))
    null = model.encode(model.null(given(DECODER)))
    found = guide(model.denoise, condition, null, scale=3.0)(X, T).x_0
    with_it, without = model.denoise(X, T, condition), model.denoise(X, T, null)
    expected = without.x_0 + 3 * (with_it.x_0 - without.x_0)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert with_it.variance_fraction is not None
    other = model.denoise(X.flip(0), T, null).x_0
    assert not torch.allclose(other, without.x_0)


def test_autocast_stays_near_and_gives_float32():
    model = build(DECODER)
    exact = run(model)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(model)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_weights_may_be_laid_out_by_channels():
    model = build(DECODER)
    out = run(model)
    torch.testing.assert_close(
        run(model.to(memory_format=torch.channels_last)), out, atol=1e-5, rtol=1e-5
    )


def test_dropout_acts_in_training_only():
    model = build(dataclasses.replace(DECODER, dropout=0.5))
    assert not torch.equal(run(model), run(model))
    assert torch.equal(run(model.eval()), run(model.eval()))


# Settings


@pytest.mark.parametrize("told", [{}, {"text": GIVEN["text"]}, GIVEN])
def test_a_condition_of_other_names_is_refused(told):
    with pytest.raises(ConfigError, match=r"condition: got .*expected text, embedding"):
        build(DECODER).encode(told)


def test_pictures_that_the_levels_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"x_t: got \(3, 3, 8, 7\), expected .*multiples of 2"):
        build(PLAIN)(X[..., :7], T, {})


@pytest.mark.parametrize("config", [PLAIN, DECODER, UPSAMPLER, PAPER, SECOND_UPSAMPLER])
def test_configs_come_back_from_json(config):
    assert from_dict(UNetConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 9, "multiple of 2, for 2 levels of patches of 1"),
        ("patch_size", 0, "at least 1"),
        ("patch_size", 3, "image_size: got 8, expected a multiple of 6"),
        ("patch_size", 4, "attention_sizes: .*some of 2, 1"),
        ("channels", 7, "even"),
        ("num_blocks", 0, "at least 1"),
        ("multipliers", (), "at least 1"),
        ("attention_sizes", (3,), "some of 8, 4"),
        ("attention_sizes", (), "attended to"),
        ("head_dim", 5, "divisor of 16"),
        ("dropout", 1.0, "less than 1"),
        ("low_size", 3, "divisor of image_size = 8"),
        ("embedding_dim", 0, "at least 1"),
    ],
)
def test_configs_that_make_no_sense(field, value, message):
    match = message if ": " in message else f"{field}: .*{message}"
    with pytest.raises(ConfigError, match=match):
        dataclasses.replace(DECODER, **{field: value})
