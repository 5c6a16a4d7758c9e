"""How far off decoders are about v, from the least noise to the most.

    python benchmarks/noise_levels.py dalle2-scenes runs/other/bundle

Noises the same fresh scenes for each of the models, tells its decoder their captions and
embeddings, and compares v with what it says. The one mean over all noise that training logs is
mostly of the least, where nothing is left to see. Prints a table, and writes
benchmarks/results/noise_levels.json and .png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

import armchair
from armchair.core.errors import UsageError
from armchair.core.images import to_tensor
from armchair.core.provenance import provenance
from armchair.data.scenes import FRESH_WORLD, Scenes, ScenesConfig
from armchair.diffusion.process import add_noise
from armchair.diffusion.samplers import keyed_noise
from armchair.diffusion.schedules import at

RESULTS = Path(__file__).parent / "results"
PICTURES, AT_ONCE, LEVELS = 256, 64, 20


@torch.no_grad()
def measure(model: armchair.DALLE2) -> dict[int, float]:
    """The mean squared error about v at each of some timesteps."""
    decoder, clip = model.decoder, model.clip
    assert clip is not None
    assert model.tokenizer is not None
    size = decoder.config.image_size
    small, large = (
        Scenes(ScenesConfig(num_pictures=PICTURES, size=side, seed=FRESH_WORLD, split="validation"))
        for side in (size, clip.model.config.image_size)
    )
    num_timesteps = decoder.schedule.num_timesteps
    levels = [int((level + 0.5) / LEVELS * num_timesteps) for level in range(LEVELS)]
    errors = dict.fromkeys(levels, 0.0)
    for start in range(0, PICTURES, AT_ONCE):
        numbers = range(start, start + AT_ONCE)
        images = to_tensor(np.stack([small.pixels(number) for number in numbers]))
        seen = [Image.fromarray(large.pixels(number)) for number in numbers]
        captions = [small.captions(number)[0] for number in numbers]
        text = torch.from_numpy(model.tokenizer.encode_batch(captions))
        told = decoder.encode({"text": text, "embedding": clip.encode_pictures(seen)})
        keys = [(0, number) for number in numbers]
        noise = keyed_noise(keys, images.shape[1:], purpose="noise levels")(0)
        for level in levels:
            t = torch.full((len(images),), level)
            x_0 = decoder.denoise(add_noise(decoder.schedule, images, t, noise), t, told).x_0
            uncertain = 1 - at(decoder.schedule.alpha_bar, t, images)
            off = (x_0 - images) / uncertain.sqrt()  # v = (sqrt(alpha_bar) x_t - x_0) / this
            errors[level] += float(off.square().mean()) * len(images) / PICTURES
    return errors


def main() -> None:
    """Measure the models that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="shipped models, or bundles' folders")
    names = parser.parse_args().models
    models = {name: armchair.load(name, device="cpu", kinds=("dalle2",)) for name in names}
    for name, model in models.items():
        if model.clip is None:
            raise UsageError(f"the CLIP of {name}", got=None, expected="one", hint="it is told all")
    errors = {name: measure(model) for name, model in models.items()}
    levels = sorted({level for of_model in errors.values() for level in of_model})
    print(f"| t | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for level in levels:
        row = (f"{of[level]:.4f}" if level in of else "" for of in errors.values())
        print(f"| {level} | {' | '.join(row)} |")
    result = {
        "mean_squared_error_about_v": errors,
        "pictures": PICTURES,
        **provenance(torch.device("cpu")),
    }
    (RESULTS / "noise_levels.json").write_text(json.dumps(result, indent=2) + "\n")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, of in errors.items():
        axes.semilogy(list(of), list(of.values()), label=name)
    axes.set(
        xlabel="timestep, from the least noise to the most", ylabel="mean squared error about v"
    )
    axes.legend()
    figure.savefig(RESULTS / "noise_levels.png", dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
