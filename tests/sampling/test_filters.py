import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from armchair.core.errors import ConfigError
from armchair.sampling.filters import (
    apply_temperature,
    check_filters,
    filter_logits,
    keep_top_k,
    keep_top_p,
)

LOGITS = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.05, 0.05, 0.2]]).log()


def kept(logits):
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def test_temperature_scales():
    assert torch.equal(apply_temperature(LOGITS, 1.0), LOGITS)
    torch.testing.assert_close(
        apply_temperature(LOGITS, 0.5).softmax(-1), (p := LOGITS.exp() ** 2) / p.sum(-1, True)
    )


def test_top_k_counts_image_tokens():
    # rivals' top-k was a share of the text and image vocabularies together: it filtered nothing
    assert kept(keep_top_k(LOGITS, 2)) == [[1, 3], [0, 3]]
    assert kept(keep_top_k(LOGITS, 1)) == [[1], [0]]
    assert torch.equal(keep_top_k(LOGITS, 4), LOGITS)
    assert torch.equal(keep_top_k(LOGITS, 100), LOGITS)
    assert keep_top_k(torch.randn(3, 512), 50).isfinite().sum(dim=-1).tolist() == [50] * 3


@pytest.mark.parametrize("top_k", [1, 7, 40, 63])
def test_top_k_keeps_what_a_stable_sort_has_first(top_k):
    logits = (3 * torch.randn(16, 64)).round()  # full of equals
    logits[0, :30] = float("-inf")
    first = logits.argsort(dim=-1, descending=True, stable=True)[:, :top_k]
    expected = torch.full_like(logits, float("-inf")).scatter(-1, first, logits.gather(-1, first))
    assert torch.equal(keep_top_k(logits, top_k), expected)


def test_top_k_breaks_ties_by_id():
    assert kept(keep_top_k(torch.zeros(1, 5), 2)) == [[0, 1]]


def test_top_p_reaches_its_mass():
    assert kept(keep_top_p(LOGITS, 0.39)) == [[1], [0]]
    assert kept(keep_top_p(LOGITS, 0.69)) == [[1, 3], [0]]
    assert kept(keep_top_p(LOGITS, 0.89)) == [[1, 2, 3], [0, 3]]
    assert torch.equal(keep_top_p(LOGITS, 1.0), LOGITS)
    assert kept(keep_top_p(LOGITS, 1e-12)) == [[1], [0]]


def test_filters_come_in_order():
    got = filter_logits(LOGITS, temperature=0.5, top_k=3, top_p=0.85)
    assert torch.equal(got, keep_top_p(keep_top_k(apply_temperature(LOGITS, 0.5), 3), 0.85))
    assert torch.equal(filter_logits(LOGITS), LOGITS)


@settings(deadline=None, max_examples=50)
@given(
    temperature=st.floats(0.05, 20),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.none() | st.floats(1e-6, 1),
    seed=st.integers(0, 1000),
)
def test_whatever_is_kept_is_unchanged_and_the_likeliest_always_is(temperature, top_k, top_p, seed):
    logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(seed)) * 4
    before = logits.clone()
    filtered = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert torch.equal(logits, before)  # the caller's tensor is not written to
    scaled = logits / temperature
    assert torch.equal(filtered.argmax(-1), logits.argmax(-1))
    assert torch.equal(filtered[filtered.isfinite()], scaled[filtered.isfinite()])
    lowest_kept = filtered.where(filtered.isfinite(), math.inf).amin(-1, keepdim=True)
    assert (
        scaled[~filtered.isfinite()] <= lowest_kept.expand_as(scaled)[~filtered.isfinite()]
    ).all()
    if top_k is not None:
        assert (filtered.isfinite().sum(-1) <= top_k).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_that_make_no_sense(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        check_filters(temperature, None, None)


def test_a_temperature_of_zero_is_told_of_top_k():
    with pytest.raises(ConfigError, match="top_k=1"):
        check_filters(0.0, None, None)


@pytest.mark.parametrize("top_k", [0, -5])
def test_top_k_below_one(top_k):
    with pytest.raises(ConfigError, match="top_k"):
        check_filters(1.0, top_k, None)


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.1, math.nan])
def test_top_p_outside_its_range(top_p):
    with pytest.raises(ConfigError, match="top_p"):
        check_filters(1.0, None, top_p)
