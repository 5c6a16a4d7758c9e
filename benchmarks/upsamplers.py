"""What an upsampler makes of small pictures of scenes, without the decoder's faults.

    armchair train dalle2-scenes --stage first_upsampler --out runs/dalle2
    python benchmarks/upsamplers.py runs/dalle2
    python benchmarks/upsamplers.py runs/dalle2 --pictures 32

Shrinks the same fresh scenes for each upsampler of the run, trained or in training, enlarges them
again in as many steps as is usual, and compares. Prints a table, writes sheets of some pictures
(small, enlarged, true) into the run's folders, and benchmarks/results/upsamplers.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from armchair.core.config import from_dict
from armchair.core.errors import UsageError
from armchair.core.images import contact_sheet, save_png, to_pil, to_pixels, to_tensor
from armchair.core.provenance import provenance
from armchair.data.scenes import FRESH_WORLD, Scenes, ScenesConfig
from armchair.evaluation.scene_reader import SceneReader, is_right
from armchair.models.autoencoders.likelihoods import psnr_db
from armchair.models.unet import UNet, UNetConfig
from armchair.nn.resampling import resize
from armchair.pipelines.dalle2_config import UPSAMPLERS, DALLE2SamplingConfig
from armchair.sampling.diffusion import DiffusionSampling, sample_images
from armchair.training.checkpoint import load_newest

RESULTS = Path(__file__).parent / "results"
AT_ONCE, SHOWN = 8, 12


def load(folder: Path, stage: str) -> tuple[UNet, int]:
    """The averaged upsampler of a run, and how many pictures it has seen."""
    checkpoint = load_newest(folder / "checkpoints", print)
    if checkpoint is None:
        raise UsageError(f"{folder} holds no upsampler", hint="see the top of this file")
    model = UNet(from_dict(UNetConfig, checkpoint.about["config"][stage]))
    model.load_state_dict(checkpoint.average)
    channels_last = model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last, checkpoint.about["images_seen"]


@torch.no_grad()
def measure(
    model: UNet, sampling: DiffusionSampling, sheet: Path, *, count: int
) -> dict[str, float]:
    """PSNR, the reader's accuracy, and seconds a picture; the accuracy of a plain resizing too."""
    config, reader = model.config, SceneReader()
    size, low_size = config.image_size, config.low_size
    assert low_size is not None
    scenes = Scenes(
        ScenesConfig(num_pictures=count, size=size, seed=FRESH_WORLD, split="validation")
    )
    psnr, right, plain, seconds, rows = [], 0, 0, 0.0, []
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        images = to_tensor(np.stack([scenes.pixels(number) for number in numbers]))
        low = resize(images, low_size)
        started = time.perf_counter()
        drawn = sample_images(
            model, {"low": low}, keys=[(0, number) for number in numbers], settings=sampling
        )
        seconds += time.perf_counter() - started
        psnr.append(psnr_db(images, drawn))
        resized = resize(low, size)
        for number, one, other in zip(numbers, to_pixels(drawn), to_pixels(resized), strict=True):
            scene = scenes.scene(number)
            right += is_right(scene, reader.read(one))
            plain += is_right(scene, reader.read(other))
        rows += list(zip(resized, drawn, images, strict=True))
    shown = [torch.stack(column) for column in zip(*rows[:SHOWN], strict=True)]
    save_png(contact_sheet(to_pil(torch.cat(shown)), columns=len(shown[0])), sheet, {})
    return {
        "psnr_db": float(torch.cat(psnr).mean()),
        "reader_accuracy": right / count,
        "reader_accuracy_resized": plain / count,
        "seconds_a_picture": seconds / count,
    }


def main() -> None:
    """Measure the upsamplers of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--pictures", type=int, default=256, help="scenes to enlarge")
    options = parser.parse_args()
    if options.pictures < 1:
        parser.error(f"--pictures: got {options.pictures}, expected at least 1")
    run, found = options.run, dict[str, dict[str, Any]]()
    sampling = DALLE2SamplingConfig()
    for number, stage in enumerate(UPSAMPLERS):
        if (run / stage).exists():
            model, seen = load(run / stage, stage)
            how, sheet = sampling.of_upsampler(number), run / stage / "enlarged.png"
            found[stage] = {"pictures_seen": seen, "steps": how.num_steps}
            found[stage] |= measure(model, how, sheet, count=options.pictures)
    print("| upsampler | pictures | steps | PSNR dB | read right | by resizing | s a picture |")
    print("|---|---|---|---|---|---|---|")
    for stage, row in found.items():
        right, plain = row["reader_accuracy"], row["reader_accuracy_resized"]
        print(
            f"| {stage} | {row['pictures_seen']:,} | {row['steps']} | {row['psnr_db']:.2f}"
            f" | {right:.1%} | {plain:.1%} | {row['seconds_a_picture']:.2f} |"
        )
    result = {"upsamplers": found, "pictures": options.pictures, **provenance(torch.device("cpu"))}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "upsamplers.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
