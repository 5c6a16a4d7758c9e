import dataclasses
import json

import pytest
import torch
from torch.nn import functional as F

import contracts
from armchair.core.config import from_dict, to_dict
from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import guide
from armchair.diffusion.process import ProcessConfig
from armchair.models.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.priors.embedding_space import NUM_DOTS
from armchair.models.priors.one_step import OneStepPrior, OneStepPriorConfig
from armchair.models.text_stream import TextStreamConfig

STREAM = TextStreamConfig(vocab_size=11, text_length=5, dim=16, num_layers=2, num_heads=2)
DIFFUSION = DiffusionPriorConfig(
    stream=STREAM,
    embedding_dim=6,
    process=ProcessConfig(num_timesteps=20, parameterisation="x_0"),
)
ONE_STEP = OneStepPriorConfig(stream=STREAM, embedding_dim=6)
AUTOREGRESSIVE = AutoregressivePriorConfig(
    stream=STREAM, embedding_dim=6, num_components=4, num_buckets=9
)
PAPER_STREAM = TextStreamConfig(
    vocab_size=49_407, text_length=256, dim=2048, num_layers=24, num_heads=32
)

TEXT = torch.tensor([[1, 2, 3, 14, 15], [4, 5, 6, 7, 8], [9, 12, 13, 14, 15]])
TEXT_EMBEDDING = F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), dim=1)
GIVEN = {"text": TEXT, "text_embedding": TEXT_EMBEDDING}
X = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
T = torch.tensor([0, 7, 19])
DOTS = torch.tensor([0, 40, 63])
CODES = torch.tensor([[0, 8, 3, 1], [2, 2, 2, 2], [7, 0, 1, 5]])


def diffusion():
    return contracts.seeded(lambda: DiffusionPrior(DIFFUSION))


def one_step():
    return contracts.seeded(lambda: OneStepPrior(ONE_STEP))


def autoregressive():
    return contracts.seeded(lambda: AutoregressivePrior(AUTOREGRESSIVE))


def run_diffusion(model, rows=slice(None)):
    condition = model.encode({name: value[rows] for name, value in GIVEN.items()})
    return model(X[rows], T[rows], condition)


def run_one_step(model, rows=slice(None)):
    return model(TEXT[rows], TEXT_EMBEDDING[rows])


def run_autoregressive(model, rows=slice(None)):
    return model(TEXT[rows], TEXT_EMBEDDING[rows], DOTS[rows], CODES[rows])


KINDS = {
    "diffusion": (diffusion, run_diffusion, (3, 6)),
    "one step": (one_step, run_one_step, (3, 6)),
    "autoregressive": (autoregressive, run_autoregressive, (3, 4, 9)),
}


@pytest.mark.parametrize(
    ("build", "count", "printed", "within"),
    [
        (
            lambda: DiffusionPrior(
                DiffusionPriorConfig(
                    stream=PAPER_STREAM,
                    embedding_dim=1024,
                    process=ProcessConfig(parameterisation="x_0"),
                )
            ),
            1_325_528_064,
            1e9,
            0.33,
        ),
        (
            lambda: AutoregressivePrior(
                AutoregressivePriorConfig(
                    stream=dataclasses.replace(PAPER_STREAM, dim=1664, num_heads=26),
                    embedding_dim=1024,
                    num_components=319,
                )
            ),
            886_781_568,
            1e9,
            0.12,
        ),
    ],
    ids=["diffusion", "autoregressive"],
)
def test_parameters_of_the_paper(build, count, printed, within):
    """Table 3 rounds to 1B; the modules' docstrings say what makes the difference."""
    with torch.device("meta"):
        model = build()
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == count
    assert found == pytest.approx(printed, rel=within)


@pytest.mark.parametrize("kind", KINDS)
def test_contracts(kind, tmp_path):
    build, run, shape = KINDS[kind]
    model = build()
    out = run(model)
    assert out.shape == shape
    contracts.gradient_reaches_every_parameter(model, out.square().sum())
    alone = torch.cat([run(model, slice(row, row + 1)) for row in range(3)])
    torch.testing.assert_close(out, alone, atol=1e-6, rtol=1e-4)
    contracts.saves_and_loads(build, run, tmp_path / "state")
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(model)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, out, atol=0.02, rtol=0.1)


# The diffusion prior


def test_everything_reaches_the_query():
    model = diffusion()
    out = run_diffusion(model)

    def changed(x=X, t=T, **given):
        return (model(x, t, model.encode({**GIVEN, **given})) != out).any(dim=1).all()

    assert changed(x=X.roll(1, 0))
    assert changed(t=(T + 1) % 20)
    assert changed(text_embedding=TEXT_EMBEDDING.roll(1, 0))
    for position in range(5):
        other = TEXT.clone()
        other[:, position] = 10
        assert changed(text=other)


def test_the_stream_has_the_papers_order(monkeypatch):
    """Tokens, text embedding, timestep, noised embedding, query."""
    model, seen = diffusion(), {}
    stream = model.stream.forward
    monkeypatch.setattr(
        model.stream, "forward", lambda text, after: stream(text, seen.setdefault("after", after))
    )
    run_diffusion(model)
    expected = [
        model.text_embedding(TEXT_EMBEDDING * 6**0.5),
        model.time(T),
        model.noised(X),
        model.query.weight.expand(3, -1),
    ]
    torch.testing.assert_close(seen["after"], torch.stack(expected, dim=1))


def test_guiding_a_prior_keeps_x_t_in_the_null_branch():
    """A rival drops the noised embedding together with the caption."""
    model = diffusion()
    condition, null = model.encode(GIVEN), model.encode(model.null(GIVEN))
    assert null["text"].tolist() == [[11, 12, 13, 14, 15]] * 3
    assert not null["text_embedding"].any()
    found = guide(model.denoise, condition, null, scale=2.0)(X, T).x_0
    with_it, without = model.denoise(X, T, condition).x_0, model.denoise(X, T, null).x_0
    torch.testing.assert_close(found, without + 2 * (with_it - without))
    assert not torch.allclose(model.denoise(X.flip(0), T, null).x_0, without)


def test_a_condition_of_other_names_is_refused():
    with pytest.raises(ConfigError, match="condition: got"):
        diffusion().encode({"text": TEXT})


# The one-step prior


def test_one_step_gives_unit_vectors_in_the_scales_direction():
    model = one_step()
    embeddings = model.embed(TEXT, TEXT_EMBEDDING)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(embeddings, F.normalize(model(TEXT, TEXT_EMBEDDING), dim=1))


# The autoregressive prior


def test_no_code_looks_ahead():
    model = autoregressive()
    logits = run_autoregressive(model)
    for component in range(4):
        other = CODES.clone()
        other[:, component] = (other[:, component] + 1) % 9
        changed = (model(TEXT, TEXT_EMBEDDING, DOTS, other) != logits).any(dim=2)
        assert not changed[:, : component + 1].any()
        assert changed[:, component + 1 :].all()


def test_caption_embedding_and_dot_product_reach_every_code():
    model = autoregressive()
    logits = run_autoregressive(model)
    for other in (
        (TEXT.flip(0), TEXT_EMBEDDING, DOTS),
        (TEXT, TEXT_EMBEDDING.roll(1, 0), DOTS),
        (TEXT, TEXT_EMBEDDING, (DOTS + 1) % NUM_DOTS),
    ):
        changed = (model(*other, CODES) != logits).any(dim=2)
        assert changed.float().mean() > 0.6  # a text flipped stays in the middle row


@torch.no_grad()
def test_the_cache_changes_nothing():
    model = autoregressive().eval()
    whole = run_autoregressive(model)
    cache = model.new_cache(3)
    logits = [model.prefill(TEXT, TEXT_EMBEDDING, DOTS, cache)]
    for index in range(3):
        logits.append(model.decode(CODES[:, index], cache, index))
    torch.testing.assert_close(torch.stack(logits, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_nothing_in_the_place_of_a_caption():
    null = autoregressive().null(GIVEN)
    text, embedding = null["text"], null["text_embedding"]
    assert text.tolist() == [[11, 12, 13, 14, 15]] * 3
    assert embedding.shape == (3, 6)
    assert not embedding.any()


# Settings


@pytest.mark.parametrize(
    ("config", "field", "value", "message"),
    [
        (DIFFUSION, "embedding_dim", 0, "at least 1"),
        (DIFFUSION, "stream", dataclasses.replace(STREAM, dim=15, num_heads=3), "even"),
        (DIFFUSION, "process", ProcessConfig(learned_variance=True), "learned_variance"),
        (ONE_STEP, "embedding_dim", 0, "at least 1"),
        (AUTOREGRESSIVE, "num_components", 7, "at most embedding_dim = 6"),
        (AUTOREGRESSIVE, "num_buckets", 0, "at least 1"),
    ],
)
def test_configs_that_make_no_sense(config, field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **{field: value})


@pytest.mark.parametrize("config", [DIFFUSION, ONE_STEP, AUTOREGRESSIVE])
def test_configs_come_back_from_json(config):
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config
