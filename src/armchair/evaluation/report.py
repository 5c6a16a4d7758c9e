"""What a model that draws can do, in numbers: `armchair evaluate`.

Everything is measured on fresh scenes that no training saw, by the scene reader. The result is one
JSON object:

    reconstruction   psnr_db, reader_accuracy; like the next two of a DALL·E 1 alone
    codebook         used_fraction, perplexity, pictures
    bits             validation (bits a code), true_elbo (bits a dimension; higher is better)
    seen, held_out, relations
                     all, object, material, background, size, relation, prompts
    candidates       where asked for: see `armchair.evaluation.candidates`
    retrieval, zero_shot, pairs
                     of the CLIP of a DALL·E 2: see `armchair.evaluation.clip_report`
    settings         sampling, seed
    commit, version, hardware, date
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.images import to_pixels, to_tensor
from armchair.core.provenance import provenance
from armchair.core.random import torch_generator
from armchair.data.scenes import (
    FRESH_WORLD,
    PROMPT_KINDS,
    Prompt,
    Scenes,
    ScenesConfig,
    prompts,
)
from armchair.evaluation.clip_report import clip_scores
from armchair.evaluation.scene_reader import ATTRIBUTES, SceneReader, is_right, judge
from armchair.models.autoencoders.likelihoods import psnr_db
from armchair.models.autoencoders.quantizers import code_counts, perplexity
from armchair.pipelines.dalle1 import DALLE1
from armchair.pipelines.dalle2 import DALLE2
from armchair.pipelines.drawing import Drawing

_BATCH_SIZE = 64
_READER_SIZE = 64  # pixels below which the reader does not read


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much to measure.

    Attributes:
        num_prompts: Prompts of each kind, one picture each.
        num_pictures: Fresh pictures for the codebook's use, if there is one.
        num_reconstructions: How many of them are reconstructed and read, and scored in bits.
        seed: Which prompts, which pictures, and which samples.
        truncate: Cut captions and prompts that are longer than the model's text positions.
    """

    num_prompts: int = 512
    num_pictures: int = 4096
    num_reconstructions: int = 1024
    seed: int = 0
    truncate: bool = False

    def __post_init__(self) -> None:
        for name in ("num_prompts", "num_pictures", "num_reconstructions"):
            if getattr(self, name) < 1:
                raise ConfigError(name, got=getattr(self, name), expected="at least 1")
        if self.num_reconstructions > self.num_pictures:
            raise ConfigError(
                "num_reconstructions",
                got=self.num_reconstructions,
                expected=f"at most num_pictures = {self.num_pictures}",
            )


@dataclass(frozen=True)
class Evaluation:
    """Scores and the pictures behind them.

    Attributes:
        scores: The JSON object.
        drawn: For each kind of prompt, (prompt, picture, verdicts).
    """

    scores: dict[str, Any]
    drawn: dict[str, list[tuple[Prompt, Image.Image, dict[str, bool | None]]]]


def evaluate(
    model: Drawing[Any],
    config: EvaluationConfig,
    *,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Measure a model of scenes.

    Args:
        model: The model; its own sampling settings are used.
        config: How much to measure.
        on_progress: Told (what is being measured, done, total).

    Raises:
        ConfigError: The model's pictures are too small to be read.
        UsageError: A caption or a prompt is too long for the model, and `truncate` is off.
    """
    check_readable(model)
    reader = SceneReader()
    scores: dict[str, Any] = {}
    if isinstance(model, DALLE1):
        scores = _judge_pictures(model, config, reader, on_progress)
    drawn = {}
    for kind in PROMPT_KINDS:
        drawn[kind] = _judge_prompts(model, config, reader, kind, on_progress)
        scores[kind] = shares([verdicts for _, _, verdicts in drawn[kind]])
    if isinstance(model, DALLE2) and model.clip is not None:
        scores |= clip_scores(model.clip, seed=config.seed, truncate=config.truncate)
    sampling = {name: getattr(model.sampling, name) for name in model.setting_names}
    scores["settings"] = {"sampling": sampling, **asdict(config)}
    scores |= provenance(model.device)
    return Evaluation(scores, drawn)


def check_readable(model: Drawing[Any]) -> None:
    """Refuse a model whose pictures are too small for the scene reader.

    Raises:
        ConfigError: They are.
    """
    size = model.image_size
    if size < _READER_SIZE:
        raise ConfigError(
            "the model's pictures", got=f"{size} pixels", expected=f"{_READER_SIZE} to be read"
        )


@torch.no_grad()
def _judge_pictures(
    model: DALLE1,
    config: EvaluationConfig,
    reader: SceneReader,
    on_progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Reconstruction, codebook and bits, on scenes of the validation stream under a fresh seed."""
    scenes = Scenes(
        ScenesConfig(
            num_pictures=config.num_pictures,
            size=model.autoencoder.config.image_size,
            seed=FRESH_WORLD + config.seed,
            split="validation",
        )
    )
    codebook_size = model.autoencoder.config.codebook_size
    counts = torch.zeros(codebook_size, dtype=torch.int64)
    totals = {"psnr": 0.0, "right": 0.0, "nats": 0.0, "elbo": 0.0}
    for start in range(0, len(scenes), _BATCH_SIZE):
        indices = range(start, min(start + _BATCH_SIZE, len(scenes)))
        images = to_tensor(np.stack([scenes.pixels(i) for i in indices])).to(model.device)
        codes = model.autoencoder.encode(images)
        counts += code_counts(codes, codebook_size).cpu()
        judged = max(0, min(config.num_reconstructions - start, len(indices)))
        if judged:
            for name, value in _score_batch(
                model, config, reader, scenes, indices[:judged], images[:judged], codes[:judged]
            ).items():
                totals[name] += value
        on_progress("pictures", indices.stop, len(scenes))
    means = {name: total / config.num_reconstructions for name, total in totals.items()}
    return {
        "reconstruction": {"psnr_db": means["psnr"], "reader_accuracy": means["right"]},
        "codebook": {
            "used_fraction": float((counts > 0).float().mean()),
            "perplexity": perplexity(counts),
            "pictures": config.num_pictures,
        },
        "bits": {
            "validation": means["nats"] / math.log(2),
            "true_elbo": means["elbo"] / (math.log(2) * 3 * scenes.config.size**2),
        },
    }


def _score_batch(
    model: DALLE1,
    config: EvaluationConfig,
    reader: SceneReader,
    scenes: Scenes,
    indices: range,
    images: Tensor,
    codes: Tensor,
) -> dict[str, float]:
    """Sums over a batch: PSNR, pictures read right, nats a code, and the bound in nats."""
    again = model.autoencoder.decode(codes)
    read = [reader.read(pixels) for pixels in to_pixels(again)]
    captions = [scenes.captions(index)[0] for index in indices]
    tokens = model.tokenizer.encode_batch(captions, truncate=config.truncate)
    text = torch.from_numpy(tokens).to(model.device)
    loss = model.transformer.loss(text, codes.flatten(1))
    generator = torch_generator("elbo", indices.start, device=images.device)
    bound = model.autoencoder.elbo_nats(images, generator)
    return {
        "psnr": float(psnr_db(images, again).sum()),
        "right": float(
            sum(is_right(scenes.scene(i), one) for i, one in zip(indices, read, strict=True))
        ),
        "nats": float(loss.image) * len(indices),
        "elbo": float(bound.sum()),
    }


def _judge_prompts(
    model: Drawing[Any],
    config: EvaluationConfig,
    reader: SceneReader,
    kind: str,
    on_progress: Callable[[str, int, int], None],
) -> list[tuple[Prompt, Image.Image, dict[str, bool | None]]]:
    asked = prompts(kind, config.num_prompts, config.seed)
    pictures = model.draw(
        [prompt.text for prompt in asked],
        [(config.seed, index) for index in range(len(asked))],
        truncate=config.truncate,
        batch_size=_BATCH_SIZE,
        on_progress=lambda done, total, _: on_progress(kind.replace("_", "-"), done, total),
    )
    return [
        (prompt, picture, judge(prompt, reader.read(np.asarray(picture))))
        for prompt, picture in zip(asked, pictures, strict=True)
    ]


def shares(verdicts: list[dict[str, bool | None]]) -> dict[str, Any]:
    """Share of pictures that are right, by attribute, among the prompts that state it."""
    found: dict[str, Any] = {}
    for name in ("all", *ATTRIBUTES):
        stated = [v[name] for v in verdicts if v[name] is not None]
        found[name] = sum(map(bool, stated)) / len(stated) if stated else None
    return {**found, "prompts": len(verdicts)}
