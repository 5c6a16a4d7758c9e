"""What a CLIP can do, in numbers: `armchair evaluate` of one, or of a model that has one.

Everything is measured on fresh scenes that no training saw. The result is one JSON object:

    retrieval     caption_recall_1, caption_recall_5, picture_recall_1, picture_recall_5, pictures
    zero_shot     object, material, background, pictures
    pairs         seen, held_out, pictures
    settings      seed, truncate
    commit, version, hardware, date
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from armchair.core.provenance import provenance
from armchair.data.scenes import (
    BACKGROUNDS,
    MATERIALS,
    OBJECTS,
    SEEN_PAIRS,
    Scene,
    distinct_prompts,
    draw,
    prompts,
)
from armchair.data.scenes.wording import with_article
from armchair.models.clip import recalls
from armchair.pipelines.clip import CLIP

NUM_PICTURES = 256


def evaluate_clip(clip: CLIP, *, seed: int = 0, truncate: bool = False) -> dict[str, Any]:
    """Measure a CLIP of scenes, and say how: all of the JSON object.

    See `clip_scores`.
    """
    return {
        **clip_scores(clip, seed=seed, truncate=truncate),
        "settings": {"seed": seed, "truncate": truncate},
        **provenance(clip.model.device),
    }


def clip_scores(clip: CLIP, *, seed: int = 0, truncate: bool = False) -> dict[str, Any]:
    """The "retrieval", "zero_shot" and "pairs" of a CLIP of scenes.

    Retrieval is among scenes of which each caption is true of its own alone. The classes of
    zero-shot classification are the objects, materials and backgrounds of pictures of one object;
    those of "pairs" are all objects in all materials, asked of seen and of held-out ones, which
    says whether the model sees shapes or knows pairs by heart. Retrieval does not.

    Args:
        clip: The model.
        seed: Which scenes.
        truncate: Cut captions that are longer than the model's texts.

    Raises:
        UsageError: A caption is too long for the model, and `truncate` is off.
    """
    asked = distinct_prompts(NUM_PICTURES, seed)
    pictures = _drawn(clip, [prompt.scene for prompt in asked])
    similarity = clip.scores(pictures, [prompt.text for prompt in asked], truncate=truncate)
    seen, held_out = (
        [prompt.scene for prompt in prompts(kind, NUM_PICTURES, seed)]
        for kind in ("seen", "held_out")
    )
    of_seen = _drawn(clip, seen)
    return {
        "retrieval": {**recalls(similarity), "pictures": len(pictures)},
        "zero_shot": {
            **_classify(
                clip,
                of_seen,
                objects=[scene.pairs[0][0] for scene in seen],
                materials=[scene.pairs[0][1] for scene in seen],
                backgrounds=[scene.background for scene in seen],
            ),
            "pictures": len(seen),
        },
        "pairs": {
            "seen": _pairs_told(clip, seen, of_seen),
            "held_out": _pairs_told(clip, held_out, _drawn(clip, held_out)),
            "pictures": NUM_PICTURES,
        },
    }


def _drawn(clip: CLIP, scenes: Sequence[Scene]) -> list[Image.Image]:
    """Pictures of scenes, in the model's size."""
    return [Image.fromarray(draw(scene, clip.model.config.image_size)) for scene in scenes]


def _pairs_told(clip: CLIP, scenes: Sequence[Scene], pictures: Sequence[Image.Image]) -> float:
    """The share of pictures of one object whose pair is told right among all pairs."""
    pairs = [(object_, material) for object_ in OBJECTS for material in MATERIALS]
    labels = [f"{with_article(material)} {object_}" for object_, material in pairs]
    told = clip.classify(pictures, labels).argmax(dim=1)
    right = torch.tensor([pairs.index(scene.pairs[0]) for scene in scenes])
    return float((told == right).float().mean())


def _classify(
    clip: CLIP,
    pictures: Sequence[Image.Image],
    *,
    objects: Sequence[str],
    materials: Sequence[str],
    backgrounds: Sequence[str],
) -> dict[str, float]:
    """The shares of pictures whose object, material and background are told right."""

    def share(truth: Sequence[str], labels: Sequence[str], templates: Sequence[str]) -> float:
        told = clip.classify(pictures, labels, templates=templates).argmax(dim=1)
        right = torch.tensor([labels.index(label) for label in truth])
        return float((told == right).float().mean())

    # Articles go by what follows them, so the materials take theirs along.
    named = [with_article(material) for material in MATERIALS]
    things = [f"{with_article(material)} {object_}" for object_, material in SEEN_PAIRS]
    return {
        "object": share(objects, OBJECTS, [f"{article} {{}}" for article in named]),
        "material": share(
            [with_article(material) for material in materials],
            named,
            [f"{{}} {object_}" for object_ in OBJECTS],
        ),
        "background": share(
            backgrounds, BACKGROUNDS, [f"{thing} on a {{}} background" for thing in things[::5]]
        ),
    }
