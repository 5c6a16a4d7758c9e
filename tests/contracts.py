"""What every module keeps, written once; the tests of a module call these with it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def seeded(build: Callable[[], Module], seed: int = 0) -> Module:
    """A module whose initial parameters are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def gradient_reaches_every_parameter(module: nn.Module, loss: Tensor) -> None:
    """No parameter is left out of the loss."""
    module.zero_grad()
    loss.backward()
    left_out = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert left_out == []


def rows_do_not_mix(
    function: Callable[[Tensor], Tensor], batch: Tensor, *, tolerance: float
) -> None:
    """A row's result is the same in any batch."""
    whole = function(batch)
    alone = torch.cat([function(row) for row in batch.split(1)])
    assert whole.shape == alone.shape
    torch.testing.assert_close(whole, alone, rtol=0, atol=tolerance)
    turned = function(batch.flip(0)).flip(0)
    torch.testing.assert_close(whole, turned, rtol=0, atol=tolerance)


def saves_and_loads(
    build: Callable[[], Module],
    function: Callable[[Module], Tensor],
    path: Path,
) -> None:
    """A module that loads another's saved state does what the other does, bit for bit."""
    module, other = seeded(build, 0), seeded(build, 1)
    save_file({name: t.contiguous() for name, t in module.state_dict().items()}, path)
    other.load_state_dict(load_file(path))
    assert torch.equal(function(module), function(other))


def same_seed_same_result(
    build: Callable[[], Module], function: Callable[[Module], Tensor]
) -> None:
    """The seed decides the initial parameters, and they the result; another seed gives another."""
    first, again, other = (function(seeded(build, seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
