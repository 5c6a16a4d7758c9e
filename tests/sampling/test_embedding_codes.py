import math

import pytest
import torch
from torch.nn import functional as F

import contracts
from armchair.core.errors import ConfigError, SamplingError
from armchair.models.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from armchair.models.priors.embedding_space import NUM_DOTS
from armchair.models.text_stream import TextStreamConfig
from armchair.sampling.embedding_codes import sample_codes
from armchair.sampling.tokens import draw, guided_logits, keyed_uniforms

CONFIG = AutoregressivePriorConfig(
    stream=TextStreamConfig(
        vocab_size=11, text_length=5, dim=16, num_layers=2, num_heads=2, dropout=0.3
    ),
    embedding_dim=6,
    num_components=4,
    num_buckets=9,
)
TEXT = torch.tensor([[1, 2, 3, 14, 15], [4, 5, 6, 7, 8], [9, 12, 13, 14, 15]])
EMBEDDINGS = F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), dim=1)
KEYS = [(7, 0), (7, 1), (8, 0)]


@pytest.fixture
def prior():
    model = contracts.seeded(lambda: AutoregressivePrior(CONFIG))
    with torch.no_grad():
        model.head.weight.mul_(40)  # a new model is undecided
    return model


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
@torch.no_grad()
def test_codes_are_drawn_from_the_uncached_logits(prior, guidance_scale):
    found = sample_codes(prior, TEXT, EMBEDDINGS, keys=KEYS, guidance_scale=guidance_scale)
    prior.eval()
    null = prior.null({"text": TEXT, "text_embedding": EMBEDDINGS})
    uniforms = keyed_uniforms("prior", KEYS, 5)
    dots = (NUM_DOTS // 2 + uniforms[:, 0] * NUM_DOTS / 2).long()
    codes = torch.zeros(3, 4, dtype=torch.long)
    for index in range(4):
        with_it = prior(TEXT, EMBEDDINGS, dots, codes)
        without = prior(null["text"], null["text_embedding"], dots, codes)
        logits = guided_logits(torch.cat([with_it, without])[:, index], 3, guidance_scale)
        codes[:, index] = draw(logits, uniforms[:, 1 + index])
    assert torch.equal(found, prior.space.decode(codes))
    assert len(codes.unique()) > 1


def test_dot_products_are_asked_for_from_the_upper_half(prior, monkeypatch):
    asked, prefill = [], prior.prefill
    monkeypatch.setattr(
        prior,
        "prefill",
        lambda text, e, dots, cache: asked.append(dots) or prefill(text, e, dots, cache),
    )
    many = [(1, k) for k in range(400)]
    sample_codes(prior, TEXT[:1].expand(400, -1), EMBEDDINGS[:1].expand(400, -1), keys=many)
    dots = asked[0]
    assert dots.min() == NUM_DOTS // 2
    assert dots.max() == NUM_DOTS - 1
    assert dots.float().mean().item() == pytest.approx(0.75 * NUM_DOTS, rel=0.03)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_an_embedding_does_not_depend_on_its_batch(prior, guidance_scale):
    together = sample_codes(prior, TEXT, EMBEDDINGS, keys=KEYS, guidance_scale=guidance_scale)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for which in ([0], [2], [2, 1]):
        alone = sample_codes(
            prior,
            TEXT[which],
            EMBEDDINGS[which],
            keys=[KEYS[row] for row in which],
            guidance_scale=guidance_scale,
        )
        torch.testing.assert_close(alone, together[which])


def test_the_key_decides_and_the_mode_is_given_back(prior):
    first = sample_codes(prior.train(), TEXT, EMBEDDINGS, keys=KEYS)
    assert prior.training
    assert torch.equal(sample_codes(prior.eval(), TEXT, EMBEDDINGS, keys=KEYS), first)
    other = sample_codes(prior, TEXT, EMBEDDINGS, keys=[(9, k) for k in range(3)])
    assert not torch.equal(other, first)


def test_under_autocast(prior):
    with torch.autocast("cpu", torch.bfloat16):
        drawn = sample_codes(prior, TEXT, EMBEDDINGS, keys=KEYS, guidance_scale=2.0)
    assert drawn.isfinite().all()


def test_what_is_not_finite_ends_it_by_name(prior):
    with torch.no_grad():
        prior.code.weight.fill_(math.nan)
    with pytest.raises(SamplingError, match="the logits of code 1"):
        sample_codes(prior, TEXT, EMBEDDINGS, keys=KEYS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": KEYS[:2]}, "keys: got 2"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": math.inf}, "guidance_scale"),
    ],
)
def test_what_cannot_be_drawn(prior, changes, message):
    arguments = {"keys": KEYS, **changes}
    with pytest.raises(ConfigError, match=message):
        sample_codes(prior, TEXT, EMBEDDINGS, **arguments)
