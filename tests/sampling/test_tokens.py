import math

import pytest
import torch

from armchair.core.errors import ConfigError
from armchair.core.random import torch_generator
from armchair.models.sequence.compiled_decoder import CompiledDecoder
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.sampling import tokens
from armchair.sampling.filters import filter_logits
from armchair.sampling.tokens import (
    candidate_rows,
    decode_one,
    draw,
    guided_logits,
    prefill,
    sample,
)

CONFIG = {
    "text_vocab_size": 11,
    "text_length": 5,
    "image_vocab_size": 13,
    "grid_size": 4,
    "dim": 32,
    "num_layers": 6,
    "num_heads": 4,
    "conv_kernel": 3,
}
TEXT = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 14, 15]])
KEYS = [(7, 0), (7, 1)]


@pytest.fixture(scope="module", params=["paper", "full"])
def model(request):
    """A transformer with weights large enough that every token has a say."""
    torch.manual_seed(0)
    model = TextToImageTransformer(TextToImageConfig(attention=request.param, **CONFIG))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model.eval()


@torch.no_grad()
def uncached_logits(model, text, codes, guidance_scale):
    """The slow reference: the whole stream for every token, each pass by itself."""
    caption = model(text, codes)[1]
    null = model(model.null_text(len(text)), codes)[1]
    return null + guidance_scale * (caption - null)


@torch.no_grad()
def sample_uncached(model, text, uniforms, guidance_scale=1.0, **filters):
    codes = torch.zeros(len(text), model.config.image_length, dtype=torch.long)
    for index in range(model.config.image_length):
        logits = uncached_logits(model, text, codes, guidance_scale)[:, index]
        codes[:, index] = draw(filter_logits(logits, **filters), uniforms[:, index])
    return codes.view(len(text), model.config.grid_size, -1)


def uniforms_of(keys, length=16):
    streams = [torch_generator("sample", *key) for key in keys]
    return torch.stack([torch.rand(length, generator=g, dtype=torch.float64) for g in streams])


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("prefix", [0, 6])
@torch.no_grad()
def test_cached_logits_equal_uncached(model, guidance_scale, prefix):
    torch.manual_seed(1)
    codes = torch.randint(0, 13, (2, 16))
    candidates = candidate_rows(2, guided=guidance_scale != 1)
    cache, logits = prefill(model, TEXT, codes[:, :prefix], candidates)
    expected = uncached_logits(model, TEXT, codes, guidance_scale)
    for index in range(prefix, 16):
        got = guided_logits(logits, 2, guidance_scale)
        torch.testing.assert_close(got, expected[:, index], atol=1e-5 * guidance_scale, rtol=1e-5)
        if index < 15:
            logits = decode_one(model, cache, codes[candidates, index], index)


@pytest.mark.parametrize(
    "settings",
    [{}, {"guidance_scale": 2.5}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}],
    ids=["plain", "guided", "filtered"],
)
def test_samples_equal_the_uncached_reference(model, settings):
    expected = sample_uncached(model, TEXT, uniforms_of(KEYS), **settings)
    assert torch.equal(sample(model, TEXT, keys=KEYS, **settings), expected)


@torch.no_grad()
def test_a_tensor_of_a_number_serves_as_the_number(model):
    rows, codes = candidate_rows(2, guided=False), torch.randint(13, (8, 16))
    nothing = TEXT.new_empty(2, 0)
    caches = [prefill(model, TEXT, nothing, rows)[0] for _ in range(2)]
    for index in range(15):
        expected = decode_one(model, caches[0], codes[:, index], index)
        found = decode_one(model, caches[1], codes[:, index], torch.tensor([index]))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for a GPU")
@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 2.0, "top_k": 7}, {"top_p": 0.9}])
def test_recorded_steps_draw_what_they_would_draw_anyhow(settings, monkeypatch):
    torch.manual_seed(0)
    model = TextToImageTransformer(TextToImageConfig(**CONFIG)).cuda()
    recorded = sample(model, TEXT, keys=KEYS, **settings)
    monkeypatch.setattr(tokens, "graphed", lambda function, device: function)
    assert torch.equal(sample(model, TEXT, keys=KEYS, **settings), recorded)


def test_the_caption_still_matters_late_under_guidance(model):
    # rivals' guidance lost the prompt from the second token on
    torch.manual_seed(2)
    codes = torch.randint(0, 13, (1, 16)).expand(2, -1)
    candidates = candidate_rows(2, guided=True)
    cache, logits = prefill(model, TEXT, codes[:, :0], candidates)
    for index in range(16):
        caption_one, caption_two, null_one, null_two = logits[:4]
        assert (caption_one - caption_two).abs().max() > 0.05  # the captions differ
        assert (caption_one - null_one).abs().max() > 0.05  # and neither is the null prompt
        torch.testing.assert_close(null_one, null_two, atol=1e-5, rtol=0)
        if index < 15:
            logits = decode_one(model, cache, codes[candidates, index], index)


@torch.no_grad()
def test_null_and_caption_passes_share_no_memory(model):
    cache, _ = prefill(model, TEXT[:1], TEXT[:1, :3] % 13, candidate_rows(1, guided=True))
    for layer in cache.layers:
        before = layer.image[0][1].clone()
        layer.image[0][0].zero_()
        assert torch.equal(layer.image[0][1], before)
        assert before.any()
        (prompts,) = layer.prompts
        caption, null = prompts[0]
        assert not torch.equal(caption, null)


@pytest.mark.parametrize(("guidance_scale", "rows"), [(1.0, 3), (2.0, 6), (0.0, 6)])
def test_guidance_of_one_runs_no_null_pass(model, monkeypatch, guidance_scale, rows):
    build, seen = CompiledDecoder.__init__, set()

    def spy(self, model, cache, rows, **settings):
        seen.add(len(rows))
        build(self, model, cache, rows, **settings)

    monkeypatch.setattr(CompiledDecoder, "__init__", spy)
    keys = [(7, k) for k in range(3)]
    sample(model, TEXT[[0, 1, 0]], keys=keys, guidance_scale=guidance_scale)
    assert seen == {rows}


def test_guided_logits_are_the_formula():
    logits = torch.tensor([[1.0, 2.0], [3.0, 5.0], [9.0, 9.0]])
    assert guided_logits(logits, 1, 3.0).tolist() == [[3 - 6, 5 - 9]]
    assert guided_logits(logits, 1, 0.0).tolist() == [[3, 5]]
    assert guided_logits(logits[:1], 1, 1.0).tolist() == [[1, 2]]


def test_top_k_of_one_is_argmax(model):
    greedy = sample(model, TEXT, keys=KEYS, top_k=1)
    assert torch.equal(greedy, sample(model, TEXT, keys=[(1, 1), (2, 2)], top_k=1))
    logits = uncached_logits(model, TEXT, greedy.flatten(1), 1.0)
    assert torch.equal(logits.argmax(-1), greedy.flatten(1))


@pytest.fixture(params=[1, 2])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(model, num_threads, guidance_scale):
    many = 13
    text = torch.stack([TEXT[k % 2] for k in range(many)])
    keys = [(5, k) for k in range(many)]
    together = sample(model, text, keys=keys, guidance_scale=guidance_scale)
    assert len(together.flatten(1).unique(dim=0)) == many  # and they differ from one another
    for rows in ([0], [12], [4, 5], [9, 3, 11], list(range(2, 9))):
        picked = sample(
            model, text[rows], keys=[keys[k] for k in rows], guidance_scale=guidance_scale
        )
        assert torch.equal(picked, together[rows])


@torch.no_grad()
def test_logits_have_the_same_bits_in_any_batch(model, num_threads):
    torch.manual_seed(3)
    codes = torch.randint(0, 13, (21, 16))
    text = TEXT[torch.arange(21) % 2]

    def late_logits(rows):
        candidates = candidate_rows(len(rows), guided=False)
        cache, logits = prefill(model, text[rows], codes[rows, :2], candidates)
        for index in range(2, 9):
            logits = decode_one(model, cache, codes[rows][candidates, index], index)
        return logits[: len(rows)]

    together = late_logits(list(range(21)))
    for rows in ([0], [20], [6, 7], [3, 1, 2], list(range(5)), list(range(4, 15))):
        assert torch.equal(late_logits(rows), together[rows])


def test_the_same_key_draws_the_same_and_another_key_another(model):
    first = sample(model, TEXT, keys=KEYS)
    torch.rand(5)  # the global stream has no say
    assert torch.equal(sample(model, TEXT, keys=KEYS), first)
    assert not torch.equal(sample(model, TEXT, keys=[(8, 0), (8, 1)]), first)


def test_a_prime_is_kept_and_goes_on(model):
    whole = sample(model, TEXT, keys=KEYS, guidance_scale=2.0)
    for given in (0, 1, 7, 15, 16):
        prime = whole.flatten(1)[:, :given]
        assert torch.equal(sample(model, TEXT, keys=KEYS, guidance_scale=2.0, prime=prime), whole)
    other = (whole.flatten(1)[:, :6] + 1) % 13
    continued = sample(model, TEXT, keys=KEYS, prime=other)
    assert torch.equal(continued.flatten(1)[:, :6], other)


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_progress_is_told_now_and_then_and_at_the_end(model, monkeypatch, seconds):
    monkeypatch.setattr(tokens, "_SPAN_SECONDS", seconds)
    told = []
    codes = sample(
        model, TEXT, keys=KEYS, prime=TEXT[:, :4] % 13, progress=lambda *at: told.append(at)
    )
    assert {total for _, total in told} == {12}
    drawn = [done for done, _ in told]
    assert drawn == ([*range(1, 13)] if seconds == 0 else [1, 2, 12])
    assert torch.equal(codes, sample(model, TEXT, keys=KEYS, prime=TEXT[:, :4] % 13))


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("prefix", [0, 5, 15])
def test_torch_draws_what_the_compiled_sampler_draws(model, guidance_scale, prefix):
    filters = {"temperature": 0.9, "top_k": 9, "top_p": 0.95}
    prime = TEXT.repeat(1, 3)[:, :prefix] % 13
    compiled = sample(model, TEXT, keys=KEYS, prime=prime, guidance_scale=guidance_scale, **filters)
    codes = torch.cat([prime, prime.new_zeros(2, 16 - prefix)], dim=1)
    uniforms = tokens.keyed_uniforms("sample", KEYS, 16)
    told = []
    with torch.no_grad():
        tokens._draw_by_torch(
            model,
            TEXT,
            codes,
            prefix,
            uniforms,
            guidance_scale,
            filters,
            lambda *at: told.append(at),
        )
    assert torch.equal(codes, compiled.flatten(1))
    assert told == [(done, 16 - prefix) for done in range(1, 17 - prefix)]


def test_training_mode_is_given_back_and_dropout_does_not_act():
    torch.manual_seed(0)
    model = TextToImageTransformer(TextToImageConfig(dropout=0.5, **CONFIG)).train()
    first = sample(model, TEXT, keys=KEYS)
    assert model.training
    assert all(block.training for block in model.blocks)
    assert torch.equal(sample(model.eval(), TEXT, keys=KEYS), first)
    assert torch.is_grad_enabled()


def test_torchs_threads_are_given_back(model):
    before, seen = torch.get_num_threads(), set()
    sample(model, TEXT, keys=KEYS, progress=lambda *_: seen.add(torch.get_num_threads()))
    with pytest.raises(ZeroDivisionError):
        sample(model, TEXT, keys=KEYS, progress=lambda *_: 1 / 0)
    assert seen == {1}
    assert torch.get_num_threads() == before


def test_sampling_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        codes = sample(model, TEXT, keys=KEYS, guidance_scale=2.0)
    assert codes.shape == (2, 4, 4)
    assert codes.min() >= 0
    assert codes.max() < 13


def test_inputs_are_left_as_they_were(model):
    text, prime = TEXT.clone(), TEXT[:, :3] % 13
    before = prime.clone()
    sample(model, text, keys=KEYS, prime=prime, guidance_scale=2.0)
    assert torch.equal(text, TEXT)
    assert torch.equal(prime, before)


def test_draw_follows_the_distribution():
    logits = torch.tensor([0.5, 0.25, 0.0, 0.25]).log()
    uniforms = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    assert draw(logits.expand(8, -1), uniforms).tolist() == [0, 0, 0, 0, 1, 1, 3, 3]


def test_draw_never_leaves_what_is_allowed():
    logits = torch.full((2, 6), float("-inf"))
    logits[:, 2] = 0
    edge = torch.tensor([0.0, math.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert draw(logits, edge).tolist() == [2, 2]
    torch.manual_seed(0)
    many = torch.randn(1000, 50).masked_fill(torch.arange(50) >= 30, float("-inf"))
    assert draw(many, edge[1:].expand(1000)).max() < 30


def test_rows_are_filled_up_to_a_multiple_of_eight():
    assert candidate_rows(3, guided=False).tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    assert candidate_rows(3, guided=True).tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert len(candidate_rows(8, guided=True)) == 16
    assert candidate_rows(3, guided=True, filled=False).tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": TEXT[:, :3]}, "text"),
        ({"text": TEXT[:0], "keys": []}, "text"),
        ({"text": TEXT + 11}, "padding"),  # the padding of other positions
        ({"text": TEXT - 5}, "tokens in"),
        ({"keys": KEYS[:1]}, "keys"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"prime": torch.zeros(2, 17, dtype=torch.long)}, "prime"),
        ({"prime": torch.full((2, 3), 13)}, "prime"),
    ],
)
def test_what_cannot_be_sampled(model, changes, message):
    arguments = {"text": TEXT, "keys": KEYS, **changes}
    with pytest.raises(ConfigError, match=message):
        sample(model, arguments.pop("text"), **arguments)
