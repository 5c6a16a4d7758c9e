"""What a prior costs: pictures drawn from embeddings of true pictures, and from the prior's.

    python benchmarks/prior_gap.py dalle2-scenes --prompts 128

Draws each prompt's picture twice under the same seed: told the embedding that CLIP has of a true
picture of it, and the one that the prior draws. The decoder's pictures, merely resized, are judged
by the scene reader. What true embeddings lack is the decoder's or CLIP's fault; the difference is
the prior's. Prints a table and writes benchmarks/results/prior_gap.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from reading import verdicts, without_upsamplers

import armchair
from armchair.core.images import to_pil
from armchair.core.provenance import provenance
from armchair.data.scenes import draw, prompts
from armchair.evaluation.scene_reader import SceneReader
from armchair.sampling.diffusion import sample_images

RESULTS = Path(__file__).parent / "results"
KINDS, AT_ONCE, SCENE_SIZE = ("seen", "held_out"), 32, 256


@torch.no_grad()
def measure(model: armchair.DALLE2, kind: str, num_prompts: int) -> dict[str, list[bool]]:
    """Whether each picture is right, by what the decoder was told."""
    assert model.clip is not None
    assert model.tokenizer is not None
    reader, asked = SceneReader(), prompts(kind, num_prompts, 0)
    scenes = [Image.fromarray(draw(prompt.scene, SCENE_SIZE)) for prompt in asked]
    texts = [prompt.text for prompt in asked]
    condition = {
        "text": torch.from_numpy(np.asarray(model.tokenizer.encode_batch(texts, truncate=True))),
        "embedding": model.clip.encode_pictures(scenes),
    }
    keys = [(0, index) for index in range(num_prompts)]
    drawn = list[Image.Image]()
    for start in range(0, num_prompts, AT_ONCE):
        part = {name: told[start : start + AT_ONCE] for name, told in condition.items()}
        part = {name: told.to(model.device) for name, told in part.items()}
        some = keys[start : start + AT_ONCE]
        settings = model.sampling.of_decoder
        drawn += to_pil(sample_images(model.decoder, part, keys=some, settings=settings))
    by_prior = model.draw(texts, keys, settings=model.sampling, batch_size=AT_ONCE)
    return {
        "true": verdicts(reader, asked, drawn),
        "prior": verdicts(reader, asked, by_prior),
    }


def main() -> None:
    """Measure the model that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a DALL·E 2: a shipped model or a bundle's folder")
    parser.add_argument("--prompts", type=int, default=128, help="of each kind (default: 128)")
    options = parser.parse_args()
    if options.prompts < 1:
        parser.error("--prompts: expected at least 1")
    model = armchair.load(options.model)
    if not isinstance(model, armchair.DALLE2) or model.clip is None:
        parser.error(f"{options.model} is no DALL·E 2 with a CLIP")
    small = without_upsamplers(model)
    found: dict[str, Any] = {kind: measure(small, kind, options.prompts) for kind in KINDS}
    print("| told the embedding of | seen | held out |\n|---|---|---|")
    for told, name in (("true", "a true picture"), ("prior", "the prior")):
        print(f"| {name} | " + " | ".join(f"{np.mean(found[k][told]):.1%}" for k in KINDS) + " |")
    result = {"right": found, "prompts": options.prompts, **provenance(model.device)}
    (RESULTS / "prior_gap.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
