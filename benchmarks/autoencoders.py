"""The first stage compared: discrete VAE against VQ-VAE, each as its recipe trained it.

    armchair train scenes --stage autoencoder --out runs/dvae
    armchair train scenes-vqvae --stage autoencoder --out runs/vqvae
    python benchmarks/autoencoders.py scenes=runs/dvae scenes-vqvae=runs/vqvae

Measures every autoencoder on the same fresh scenes, prints one table, and writes
benchmarks/results/autoencoders.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from armchair.core.errors import UsageError
from armchair.core.images import to_pixels, to_tensor
from armchair.core.provenance import provenance
from armchair.data.scenes import FRESH_WORLD, Scenes, ScenesConfig
from armchair.evaluation.scene_reader import SceneReader, is_right
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.likelihoods import psnr_db
from armchair.models.autoencoders.quantizers import code_counts, perplexity
from armchair.pipelines.dalle1 import build_autoencoder
from armchair.recipes import build_recipe
from armchair.training.checkpoint import load_newest
from armchair.training.dalle1 import DALLE1Recipe

RESULTS = Path(__file__).parent / "results"
PICTURES, READ, BATCH_SIZE = 4096, 1024, 64


def load(name: str, run: Path) -> tuple[ImageTokenizer, dict[str, Any]]:
    """The averaged autoencoder of a run of a recipe, and how long it was trained."""
    recipe = build_recipe(name)
    checkpoint = load_newest(run / "autoencoder" / "checkpoints", print)
    if checkpoint is None or not isinstance(recipe, DALLE1Recipe):
        raise UsageError(f"{run} holds no autoencoder of {name}", hint="see the top of this file")
    model = build_autoencoder(recipe.autoencoder)
    model.load_state_dict(checkpoint.average)
    lines = (run / "autoencoder" / "metrics.jsonl").read_text("utf-8").splitlines()
    speeds = [e["images_per_second"] for e in map(json.loads, lines) if e["kind"] == "train"]
    seen = checkpoint.about["images_seen"]
    minutes = seen / len(speeds) * sum(1 / speed for speed in speeds) / 60
    return model.eval(), {"pictures_seen": seen, "minutes": minutes}


@torch.no_grad()
def measure(model: ImageTokenizer) -> dict[str, float]:
    """PSNR and the reader's accuracy on reconstructions, and how the codebook is used."""
    size, codebook_size = model.config.image_size, model.config.codebook_size
    scenes = Scenes(
        ScenesConfig(num_pictures=PICTURES, size=size, seed=FRESH_WORLD, split="validation")
    )
    reader, counts = SceneReader(), torch.zeros(codebook_size, dtype=torch.int64)
    psnr, right = [], 0
    for start in range(0, PICTURES, BATCH_SIZE):
        numbers = range(start, start + BATCH_SIZE)
        images = to_tensor(np.stack([scenes.pixels(number) for number in numbers]))
        codes = model.encode(images)
        counts += code_counts(codes, codebook_size)
        if start >= READ:
            continue
        again = model.decode(codes)
        psnr.append(psnr_db(images, again))
        for number, pixels in zip(numbers, to_pixels(again), strict=True):
            right += is_right(scenes.scene(number), reader.read(pixels))
    return {
        "psnr_db": float(torch.cat(psnr).mean()),
        "reader_accuracy": right / READ,
        "codebook_used": float((counts > 0).float().mean()),
        "perplexity": perplexity(counts),
    }


def main() -> None:
    """Measure the runs that the command line names."""
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    found = {}
    for word in sys.argv[1:]:
        name, _, run = word.partition("=")
        model, trained = load(name, Path(run))
        found[name] = {**trained, **measure(model)}
    print("| recipe | minutes | PSNR dB | read right | codes in use | perplexity |")
    print("|---|---|---|---|---|---|")
    for name, row in found.items():
        print(
            f"| {name} | {row['minutes']:.0f} | {row['psnr_db']:.2f} | {row['reader_accuracy']:.1%}"
            f" | {row['codebook_used']:.0%} | {row['perplexity']:.0f} |"
        )
    result = {"autoencoders": found, "pictures": PICTURES, "read": READ}
    result |= provenance(torch.device("cpu"))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "autoencoders.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
