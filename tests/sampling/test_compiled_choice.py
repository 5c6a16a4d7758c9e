import itertools

import pytest
import torch

from armchair.sampling.compiled_choice import CompiledChoice
from armchair.sampling.filters import filter_logits
from armchair.sampling.tokens import draw, guided_logits

SETTINGS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for temperature, top_k, top_p in itertools.product(
        (1.0, 0.3), (None, 1, 7, 500), (None, 0.5, 1.0)
    )
]


def reference(logits, uniforms, guidance_scale, filters):
    logits = guided_logits(logits, len(uniforms), guidance_scale)
    return draw(filter_logits(logits, **filters), uniforms)


@pytest.mark.parametrize("filters", SETTINGS)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0, 0.0])
@pytest.mark.parametrize("vocab_size", [1, 13, 1000])
def test_it_picks_what_the_reference_picks(filters, guidance_scale, vocab_size):
    torch.manual_seed(0)
    batch_size = 20
    rows = batch_size if guidance_scale == 1 else 2 * batch_size
    logits = (torch.randn(rows, vocab_size + 3) * 3)[:, :vocab_size]  # rows apart in memory
    uniforms = torch.rand(batch_size, dtype=torch.float64)
    choose = CompiledChoice(batch_size=batch_size, guidance_scale=guidance_scale, **filters)
    before = logits.clone()
    found = choose(logits, uniforms)
    assert torch.equal(found, reference(logits, uniforms, guidance_scale, filters))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("top_k", [1, 3, 9, 30])
def test_of_equals_the_first_are_kept(top_k):
    torch.manual_seed(0)
    logits = torch.randn(200, 40).round()
    logits[:, ::7] = -0.0
    logits[:20, :38] = -torch.inf
    uniforms = torch.rand(200, dtype=torch.float64)
    filters = {"temperature": 1.0, "top_k": top_k, "top_p": None}
    found = CompiledChoice(batch_size=200, guidance_scale=1.0, **filters)(logits, uniforms)
    assert torch.equal(found, reference(logits, uniforms, 1.0, filters))


def test_numbers_at_the_ends_pick_tokens_that_may_be_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]] * 2)
    uniforms = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    filters = {"temperature": 1.0, "top_k": None, "top_p": None}
    choose = CompiledChoice(batch_size=2, guidance_scale=1.0, **filters)
    assert choose(logits, uniforms).tolist() == [1, 2]


def test_what_is_no_number_picks_a_token_all_the_same():
    filters = {"temperature": 1.0, "top_k": 2, "top_p": 0.9}
    choose = CompiledChoice(batch_size=1, guidance_scale=1.0, **filters)
    code = choose(torch.full((1, 5), torch.nan), torch.zeros(1, dtype=torch.float64))
    assert 0 <= int(code) < 5
