"""What several processes do together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def gather_embeddings(embeddings: Float[Tensor, "B E"]) -> tuple[Tensor, int]:
    """Bring together the embeddings of all ranks, each with equally many: a `Gather` of CLIP.

    Gradients go back to the rank whose embeddings they are of, summed over the ranks.

    Args:
        embeddings: This rank's.

    Returns:
        Those of rank 0, then of rank 1, and so on; and the place of this rank's first.
    """
    return _AllGather.apply(embeddings), dist.get_rank() * len(embeddings)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
