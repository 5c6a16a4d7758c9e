"""How much a linear map sees in a CLIP's embeddings: objects and materials, of pairs it never saw.

    python benchmarks/linear_probe.py clip-scenes
    python benchmarks/linear_probe.py runs/clip/bundle --pictures 1000

Fits a logistic regression to the embeddings of pictures of one object, of seen pairs, and asks it
about others of seen and of held-out pairs. A decoder that is told an embedding can draw of it what
is in it plainly: where objects of held-out pairs are not, it draws another pair's. Prints a table
and writes benchmarks/results/linear_probe.json.

Source: "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020),
section 3.2.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import armchair
from armchair.core.provenance import provenance
from armchair.data.scenes import MATERIALS, OBJECTS, draw, prompts
from armchair.pipelines.clip import CLIP

RESULTS = Path(__file__).parent / "results"
FITTED_SEED, ASKED_SEED = 1, 0
DECAY, STEPS = 1e-4, 200
CLASSES = {"object": OBJECTS, "material": MATERIALS}  # in a pair's order


def embedded(clip: CLIP, kind: str, count: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings of pictures of one object, and the classes of what they show."""
    scenes = [prompt.scene for prompt in prompts(kind, count, seed)]
    size = clip.model.config.image_size
    embeddings = clip.encode_pictures([Image.fromarray(draw(scene, size)) for scene in scenes])
    shown = {
        name: torch.tensor([names.index(scene.pairs[0][place]) for scene in scenes])
        for place, (name, names) in enumerate(CLASSES.items())
    }
    return embeddings, shown


def fitted(embeddings: Tensor, classes: Tensor, num_classes: int) -> nn.Linear:
    """The logistic regression; embeddings are unit vectors, far from unit variance."""
    probe = nn.Linear(embeddings.shape[1], num_classes)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(probe(embeddings), classes)
        found = found + DECAY * probe.weight.square().sum() / 2
        found.backward()
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return probe


def main() -> None:
    """Fit, ask, print a table, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundle with a CLIP, by name or path")
    parser.add_argument("--pictures", type=int, default=3000, help="to fit to")
    parser.add_argument("--asked", type=int, default=600, help="pictures of each kind to ask about")
    options = parser.parse_args()
    if min(options.pictures, options.asked) < 2:
        parser.error("--pictures and --asked: expected at least 2 each")
    clip = armchair.load_clip(options.model)
    known, known_classes = embedded(clip, "seen", options.pictures, FITTED_SEED)
    scale = known.std()
    probes = {
        name: fitted(known / scale, known_classes[name], len(names))
        for name, names in CLASSES.items()
    }
    found: dict[str, dict[str, float]] = {name: {} for name in CLASSES}
    for kind in ("seen", "held_out"):
        asked, classes = embedded(clip, kind, options.asked, ASKED_SEED)
        for name, probe in probes.items():
            told = probe(asked / scale).argmax(dim=1)
            found[name][kind] = float((told == classes[name]).float().mean())
    print("| by a linear map | seen | held out |\n|---|---|---|")
    for name, of_kind in found.items():
        print(f"| {name} | {of_kind['seen']:.1%} | {of_kind['held_out']:.1%} |")
    result = {
        "probe": found,
        "model": Path(options.model).name,
        "pictures": options.pictures,
        "asked": options.asked,
        **provenance(clip.model.device),
    }
    (RESULTS / "linear_probe.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
