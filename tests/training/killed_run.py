"""Tiny runs of training, each a process that may be killed.

Reads "loop" or "run" and a folder from each line of standard input, forks a process that trains in
it, one stage or all of a recipe, and prints its id, and when it has ended, its wait status. Forking
spares each the import of torch.
"""

import os
import sys
import traceback
from pathlib import Path

import torch
import toys
from toy_recipes import dalle1_recipe

from armchair.data import shards
from armchair.training.dalle1 import DALLE1Run
from armchair.training.observers import MetricsFile, Observers, PreviewFolder


def loop(folder: Path) -> None:
    """Train a discrete VAE, saving often enough that a kill may well fall into it."""
    observer = Observers([MetricsFile(folder / "metrics.jsonl"), PreviewFolder(folder)])
    training = toys.config(
        num_images=640, log_every=16, validate_every=40, checkpoint_every=24, keep_checkpoints=2
    )
    toys.go(toys.fit_dvae(), folder / "checkpoints", training, observer)


def run(folder: Path) -> None:
    """Walk all stages of a DALL·E 1, with codes in many shards."""
    shards.SHARD_SIZE = 2
    training = toys.config(checkpoint_every=24)
    recipe = dalle1_recipe(autoencoder_training=training, transformer_training=training)
    walk = DALLE1Run(
        recipe,
        folder,
        device=torch.device("cpu"),
        observe=lambda stage, folder: Observers([]),
        message=lambda text: print(text, file=sys.stderr),
        command="run",
    )
    walk.run()


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            status = 1
            try:
                kind, folder = line.strip().split(" ", 1)
                {"loop": loop, "run": run}[kind](Path(folder))
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
