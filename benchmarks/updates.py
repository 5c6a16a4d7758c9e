"""An update of each part of dalle2-scenes: pictures a second, and what Muon's precision costs.

    python benchmarks/updates.py

Each part is trained on made-up batches of its recipe's size, in the precision that training takes
on this machine: the loss and its gradients are timed, and the step of the optimizer with Muon's
products in float32 and in bfloat16, in turns. Prints a table, and writes
benchmarks/results/updates.json.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from timing import seconds
from torch import Tensor
from torch.nn import functional as F

from armchair.core.device import (
    Precision,
    autocast,
    prepare_for_training,
    resolve_precision,
)
from armchair.core.provenance import provenance
from armchair.models.clip import CLIPModel
from armchair.models.unet import UNet
from armchair.pipelines.dalle2_config import build_prior
from armchair.recipes import build_recipe
from armchair.training.dalle2_recipe import PARTS, DALLE2Recipe
from armchair.training.muon import Muon
from armchair.training.objective import Objective
from armchair.training.objectives import prior_objective
from armchair.training.objectives.contrastive import ContrastiveObjective
from armchair.training.objectives.diffusion import DiffusionObjective
from armchair.training.optim import build_optimizers

RESULTS = Path(__file__).parent / "results"
TURNS, WARM_UP = 5, 1
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
NUM_TOKENS = 14  # of a usual caption


def batch_of(recipe: DALLE2Recipe, count: int, side: int) -> dict[str, Tensor]:
    """Captions, pictures and embeddings, made up."""
    assert recipe.tokenizer is not None
    assert recipe.clip is not None
    vocab_size, length = recipe.tokenizer.vocab_size, recipe.tokenizer.context_length
    text = torch.arange(vocab_size, vocab_size + length).repeat(count, 1)  # padding
    text[:, :NUM_TOKENS] = torch.randint(vocab_size, (count, NUM_TOKENS))
    embedding = F.normalize(torch.randn(count, recipe.clip.embedding_dim), dim=1)
    return {
        "images": torch.rand(count, 3, side, side) * 2 - 1,
        "text": text,
        "near_misses": text[:, None].repeat(1, 2, 1),
        "embedding": embedding,
        "image_embedding": embedding,
        "text_embedding": embedding.roll(1, dims=0),
    }


def lesson(recipe: DALLE2Recipe, part: str) -> tuple[Objective[Any], dict[str, Tensor]]:
    """What a part minimises, and a batch for it."""
    shape, loss, training = (getattr(recipe, f"{part}{end}") for end in ("", "_loss", "_training"))
    if part == "prior":
        batch, model = batch_of(recipe, training.batch_size, 8), build_prior(shape)
        sampling = recipe.sampling.of_prior
        return prior_objective(model, loss, validation={}, sampling=sampling), batch
    if part == "clip":
        batch = batch_of(recipe, training.batch_size, shape.image_size)
        judged = ContrastiveObjective(
            CLIPModel(shape), loss, images=batch["images"][:1], text=batch["text"][:1]
        )
        return judged, batch
    batch = batch_of(recipe, training.batch_size, loss.crop_size or shape.image_size)
    model = UNet(shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DiffusionObjective(
        model, loss, validation={}, sampling=recipe.sampling.of_decoder
    ), batch


def measure(recipe: DALLE2Recipe, part: str) -> dict[str, Any]:
    """Median seconds of each half of an update."""
    objective, batch = lesson(recipe, part)
    dtype = resolve_precision("auto", torch.device("cpu"))
    training = getattr(recipe, f"{part}_training")
    optimizers = build_optimizers(objective.model, training.optimizer)

    def learn() -> None:
        with autocast(torch.device("cpu"), dtype):
            loss = objective.loss(batch, progress=0.5, generator=torch.Generator().manual_seed(0))
        loss.total.backward()

    def step() -> None:
        for optimizer in optimizers:
            optimizer.step()

    found: dict[str, list[float]] = {name: [] for name in ("learn", *PRECISIONS)}
    for turn in range(WARM_UP + TURNS):
        objective.model.zero_grad()
        times = {"learn": seconds(learn)}
        for precision in PRECISIONS:
            for optimizer in optimizers:
                if isinstance(optimizer, Muon):
                    optimizer.precision = precision
            times[precision] = seconds(step)
        if turn >= WARM_UP:
            for name, value in times.items():
                found[name].append(value)
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {
        "part": part,
        "parameters": sum(p.numel() for p in objective.model.parameters()),
        "batch_size": training.batch_size,
        "precision": str(dtype).removeprefix("torch."),
        "seconds": medians,
        "pictures_a_second": {
            precision: training.batch_size / (medians["learn"] + medians[precision])
            for precision in PRECISIONS
        },
    }


def main() -> None:
    """Measure every part."""
    prepare_for_training()
    recipe = build_recipe("dalle2-scenes")
    assert isinstance(recipe, DALLE2Recipe)
    rows = []
    print("| part | batch | loss and gradients, s | pictures/s, Muon in float32 | in bfloat16 |")
    print("|---|---|---|---|---|", flush=True)
    for part in PARTS:
        rows.append(measure(recipe, part))
        speeds = " | ".join(f"{rows[-1]['pictures_a_second'][name]:.1f}" for name in PRECISIONS)
        learn = rows[-1]["seconds"]["learn"]
        print(f"| {part} | {rows[-1]['batch_size']} | {learn:.2f} | {speeds} |", flush=True)
    result = {"rows": rows, **provenance(torch.device("cpu"))}
    (RESULTS / "updates.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
