"""Tiny runs of training, each a process that may be killed.

Reads a folder from each line of standard input, forks a process that trains in it, and prints its
id, and when it has ended, its wait status. Forking spares each the import of torch.
"""

import os
import sys
import traceback
from pathlib import Path

import torch
import toys

from armchair.training.observers import MetricsFile, Observers, PreviewFolder


def run(folder: Path) -> None:
    """Train a discrete VAE, saving often enough that a kill may well fall into it."""
    observer = Observers([MetricsFile(folder / "metrics.jsonl"), PreviewFolder(folder)])
    training = toys.config(
        num_images=640, log_every=16, validate_every=40, checkpoint_every=24, keep_checkpoints=2
    )
    toys.go(toys.fit_dvae(), folder / "checkpoints", training, observer)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            status = 1
            try:
                run(Path(line.strip()))
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
