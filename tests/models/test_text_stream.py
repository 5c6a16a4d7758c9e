import dataclasses

import pytest
import torch

import contracts
from armchair.core.errors import ConfigError
from armchair.models.text_stream import TextStream, TextStreamConfig

TINY = TextStreamConfig(vocab_size=11, text_length=5, dim=16, num_layers=2, num_heads=2)
TEXT = torch.tensor([[1, 2, 3, 14, 15], [4, 5, 6, 7, 8], [9, 12, 13, 14, 15]])


def build(pattern="causal"):
    return contracts.seeded(lambda: TextStream(TINY, pattern=pattern))


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_states_of_the_text_and_of_what_follows():
    assert build()(TEXT).shape == (3, 5, 16)
    assert build()(TEXT, draw(3, 2, 16)).shape == (3, 7, 16)


@pytest.mark.parametrize("pattern", ["causal", "all"])
def test_who_sees_whom(pattern):
    model, after = build(pattern), draw(1, 2, 16)
    states = model(TEXT[:1], after)
    for position in range(7):
        text, later = TEXT[:1].clone(), after.clone()
        if position < 5:
            text[:, position] = (text[:, position] + 1) % 11
        else:
            later[:, position - 5] *= -1
        changed = (model(text, later) != states).any(dim=-1)[0]
        assert not changed[:position].any() or pattern == "all"
        assert changed[position:].all()
        assert changed.all() or pattern == "causal"


def test_contracts(tmp_path):
    model = build()
    loss = model(TEXT, draw(3, 2, 16)).square().mean() + model(TEXT)[0, 0, 0]
    model.zero_grad()
    loss.backward()
    left_out = [n for n, p in model.named_parameters() if not p.grad.any()]
    assert left_out == []
    contracts.rows_do_not_mix(model, TEXT, tolerance=1e-6)
    contracts.saves_and_loads(
        lambda: TextStream(TINY, pattern="all"), lambda m: m(TEXT), tmp_path / "state"
    )


def test_states_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert build()(TEXT).dtype == torch.float32


@pytest.mark.parametrize(
    ("field", "value"), [("dim", 15), ("num_layers", 0), ("vocab_size", 0), ("dropout", 1.0)]
)
def test_configs_that_make_no_sense(field, value):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(TINY, **{field: value})
