import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from armchair.core.random import fold, numpy_generator, permutation, torch_generator


def test_seeds_are_the_same_on_every_machine() -> None:
    assert fold("noise") == 1982055066001223794
    assert fold("noise", 0) == 5083561941252096584
    assert fold("noise", 1, -2, 2**70) == 2204462908657192679


def test_streams_are_the_same_on_every_machine() -> None:
    assert numpy_generator("noise", 0).integers(0, 1000, 5).tolist() == [486, 895, 199, 860, 384]
    drawn = torch.randint(1000, (5,), generator=torch_generator("noise", 0))
    assert drawn.tolist() == [198, 52, 275, 499, 582]
    assert permutation(8, 0, 0).tolist() == [4, 2, 6, 7, 5, 0, 3, 1]
    assert permutation(8, 0, 1).tolist() == [6, 1, 5, 4, 2, 7, 0, 3]
    assert permutation(8, 1, 0).tolist() == [6, 4, 7, 2, 3, 5, 0, 1]


def test_purposes_and_keys_do_not_share_a_stream() -> None:
    seeds = [
        fold("noise"),
        fold("data"),
        fold("noise", 0),
        fold("noise", 0, 0),
        fold("noise", 1, 23),
        fold("noise", 12, 3),
        fold("noise", 123),
        fold("noise", -123),
    ]
    assert len(set(seeds)) == len(seeds)
    assert numpy_generator("a", 0).random() != numpy_generator("b", 0).random()


@given(st.text(), st.lists(st.integers()))
@settings(deadline=None)
def test_any_key_gives_a_seed_that_torch_takes(purpose: str, keys: list[int]) -> None:
    assert 0 <= fold(purpose, *keys) < 2**63
    torch_generator(purpose, *keys)


def test_drawing_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=torch_generator("noise", 0))
    assert torch.equal(before, torch.get_rng_state())


@given(st.integers(0, 200), st.integers(), st.integers(0, 5))
@settings(deadline=None)
def test_a_permutation_holds_each_item_once(length: int, seed: int, epoch: int) -> None:
    order = permutation(length, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(length))
