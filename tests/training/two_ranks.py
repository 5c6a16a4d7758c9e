"""One of two processes that share a batch; writes the loss and the averaged gradients.

python two_ranks.py RANK FOLDER
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import toys
from safetensors.torch import save_file

from armchair.training.distributed import gather_embeddings
from armchair.training.objectives.contrastive import ContrastiveLossConfig


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    objective = toys.fit_clip(ContrastiveLossConfig(chunk_size=3), gather=gather_embeddings)
    batch = {name: tensor.chunk(2)[rank] for name, tensor in toys.pairs(8).items()}
    loss = objective.loss(batch, progress=0.0, generator=torch.Generator()).total
    loss.backward()
    results = {"loss": loss.detach().clone()}
    for name, parameter in objective.model.named_parameters():
        assert parameter.grad is not None
        results[name] = parameter.grad
    for tensor in results.values():
        dist.all_reduce(tensor)
        tensor.div_(2)
    save_file(results, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
