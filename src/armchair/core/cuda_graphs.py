"""CUDA graphs: the kernels of a function, recorded once and started together ever after.

A network of small layers leaves a GPU idle while Python starts one kernel after another; a recorded
one is started whole. See docs/experiments.md for what that is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def graphed(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The same function, whose kernels are recorded if it runs on a GPU.

    Its first call runs as it is and its second records, so that no call is wasted; calls with
    tensors of other shapes or dtypes than the first run as they are.

    Args:
        function: From tensors on `device` to one tensor. What it does must depend on their shapes
            alone, it must move nothing between devices, and what it closes over is taken to stay.
        device: Where it runs; on a CPU there is nothing to record.
    """
    return function if device.type != "cuda" else _Graphed(function, device)


class _Graphed:
    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self.function = function
        self.device = device
        self.kind: Any = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        kind = [(tensor.shape, tensor.dtype) for tensor in inputs]
        with torch.cuda.device(self.device):
            if self.kind is None:
                self.kind = kind
                return self._warm_up(inputs)
            if kind != self.kind:
                return self.function(*inputs)
            if self.graph is None:
                self._record(inputs)
            assert self.graph is not None
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given)
            self.graph.replay()
            return self.output.clone()

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Run it where libraries may set themselves up, beside the stream in use."""
        stream, own = torch.cuda.current_stream(), torch.cuda.Stream()
        own.wait_stream(stream)
        with torch.cuda.stream(own):
            output = self.function(*inputs)
        stream.wait_stream(own)
        output.record_stream(stream)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.output = self.function(*self.inputs)
        self.graph = graph
