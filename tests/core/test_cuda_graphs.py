from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from armchair.core.cuda_graphs import graphed
from armchair.core.device import autocast

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for a GPU")


def test_on_a_cpu_nothing_is_recorded() -> None:
    def double(x: Tensor) -> Tensor:
        return 2 * x

    assert graphed(double, torch.device("cpu")) is double


@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_is_replayed_is_what_would_have_run(dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 3)).to(device)
    runs = 0

    def run(x: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return network(x)

    recorded = graphed(run, device)
    with autocast(device, dtype):
        given = [torch.randn(2, 3, 16, 16, device=device) for _ in range(5)]
        found = [recorded(x) for x in given]
        assert runs == 2  # the first, and the one that is recorded
        for x, output in zip(given, found, strict=True):
            assert torch.equal(output, network(x))
        larger = torch.randn(3, 3, 20, 20, device=device)
        assert torch.equal(recorded(larger), network(larger))
        assert torch.equal(recorded(given[0]), found[0])


@on_a_gpu
@torch.no_grad()
def test_outputs_stay_when_the_next_is_replayed() -> None:
    device = torch.device("cuda")
    recorded = graphed(lambda x: x + 1, device)
    outputs = [recorded(torch.full((1,), float(number), device=device)) for number in range(4)]
    assert [float(output) for output in outputs] == [1, 2, 3, 4]
