from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from armchair.core.errors import DataError
from armchair.core.random import permutation, torch_generator
from armchair.data.loader import batches


class Numbered:
    """Examples that say which they are, where in the run they were seen, and one random number."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        chance = torch.rand((), generator=torch_generator("example", position))
        return {
            "index": torch.tensor(index),
            "position": torch.tensor(position),
            "chance": chance,
            "thread count": torch.tensor(torch.get_num_threads()),
        }


def collect(stream: Iterator[dict[str, Tensor]], name: str = "index") -> list[list[Any]]:
    return [batch[name].tolist() for batch in stream]


def order(start: int, stop: int, **changes: Any) -> list[list[int]]:
    options = {"batch_size": 4, "seed": 3, **changes}
    return collect(batches(Numbered(10), start=start, stop=stop, **options))


def test_each_epoch_is_its_own_permutation_of_seed_and_epoch() -> None:
    seen = [index for batch in order(0, 25) for index in batch]
    expected = [*permutation(10, 3, 0), *permutation(10, 3, 1), *permutation(10, 3, 2)[:5]]
    assert seen == expected


def test_batches_run_across_epochs_and_the_last_may_be_smaller() -> None:
    assert [len(batch) for batch in order(0, 25)] == [4] * 6 + [1]


@pytest.mark.parametrize("start", [4, 8, 12, 20, 24])
def test_a_resumed_run_goes_on_in_mid_epoch(start: int) -> None:
    unbroken = order(0, 25)
    assert order(start, 25) == unbroken[start // 4 :]


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    assert sum(order(0, 25), []) == sum(order(0, 25, batch_size=7), [])  # noqa: RUF017


def test_another_seed_is_another_order() -> None:
    assert order(0, 10) != order(0, 10, seed=4)


def test_positions_key_random_choices() -> None:
    stream = list(batches(Numbered(3), batch_size=2, start=0, stop=7, seed=0))
    positions = torch.cat([batch["position"] for batch in stream])
    assert positions.tolist() == list(range(7))
    chances = torch.cat([batch["chance"] for batch in stream])
    assert len(chances.unique()) == 7  # the same picture is seen otherwise each time


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(num_workers: int) -> None:
    assert order(4, 40, num_workers=num_workers) == order(4, 40)


def test_a_worker_computes_on_one_thread() -> None:
    stream = batches(Numbered(4), batch_size=4, start=0, stop=4, seed=0, num_workers=1)
    assert collect(stream, "thread count") == [[1] * 4]


def test_a_finished_run_has_no_more_batches() -> None:
    assert order(25, 25) == []


def test_no_examples_are_refused() -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        next(batches(Numbered(0), batch_size=4, start=0, stop=8, seed=0))


class Broken(Numbered):
    """Examples of which one cannot be read."""

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        if index == 5:
            raise DataError("picture 5 is gone", hint="look elsewhere")
        return super().example(index, position)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_wrong_with_an_example_comes_through(num_workers: int) -> None:
    stream = batches(Broken(10), batch_size=2, start=0, stop=10, seed=0, num_workers=num_workers)
    with pytest.raises(DataError, match="picture 5 is gone") as caught:
        list(stream)
    assert str(caught.value) == "picture 5 is gone\nhint: look elsewhere"
