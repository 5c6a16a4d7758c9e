"""The order in which a run sees its data: a pure function of the seed and the position.

Position p of a run is example `permutation(seed, epoch)[p mod length]` of epoch p div length. A
resumed run starts at the position where it stopped; nothing else need be remembered.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from armchair.core.errors import ArmchairError, DataError
from armchair.core.random import permutation


@runtime_checkable
class Examples(Protocol):
    """Something to train on: example `index` as it is seen at position `position` of the run."""

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        """Named tensors; random choices in it are keyed by `position`."""
        ...


class _ByPosition(Dataset[dict[str, Tensor] | ArmchairError]):
    def __init__(self, examples: Examples, seed: int) -> None:
        self.examples = examples
        self.seed = seed
        self.epoch = -1
        self.order = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> dict[str, Tensor] | ArmchairError:
        epoch, place = divmod(position, len(self.examples))
        if epoch != self.epoch:
            self.order, self.epoch = permutation(len(self.examples), self.seed, epoch), epoch
        try:
            return self.examples.example(int(self.order[place]), position)
        except ArmchairError as error:  # raised in a worker, it would come with a traceback in it
            return error


def batches(
    examples: Examples, *, batch_size: int, start: int, stop: int, seed: int, num_workers: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Batches of a run from position `start` up to `stop`.

    Args:
        examples: What to draw from, epoch after epoch.
        batch_size: Examples in each batch; the last may be smaller.
        start: Examples that the run has seen.
        stop: Examples that the run sees in all.
        seed: Decides the order.
        num_workers: Processes that prepare batches ahead of need; the batches do not depend on it.

    Yields:
        Named tensors with the batch in front.

    Raises:
        DataError: There are no examples.
        ArmchairError: An example's own error, as it was raised.
    """
    if len(examples) == 0:
        raise DataError("the data set is empty", hint="check --data")
    positions = [range(at, min(at + batch_size, stop)) for at in range(start, stop, batch_size)]
    loader: DataLoader[dict[str, Tensor] | ArmchairError] = DataLoader(
        _ByPosition(examples, seed),
        batch_sampler=positions,  # type: ignore[arg-type]
        collate_fn=_collate,
        num_workers=num_workers,
        worker_init_fn=_quiet_worker if num_workers else None,
        multiprocessing_context="fork" if num_workers else None,
        prefetch_factor=4 if num_workers else None,
    )
    for batch in loader:
        if isinstance(batch, ArmchairError):
            raise batch
        yield batch


def _collate(examples: list[Any]) -> Any:
    """Stack examples; an error among them stands for the batch."""
    errors = (example for example in examples if isinstance(example, ArmchairError))
    return next(errors, None) or default_collate(examples)


def _quiet_worker(_: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group of processes
        signal.signal(number, signal.SIG_IGN)  # the parent saves, then ends its workers
    torch.set_num_threads(1)
