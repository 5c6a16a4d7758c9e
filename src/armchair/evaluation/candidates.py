"""What drawing more pictures and keeping the one that CLIP ranks best is worth.

Source: "Zero-Shot Text-to-Image Generation", arXiv 2102.12092, figure 9c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from armchair.core.figures import new_figure, save_figure
from armchair.data.scenes import Prompt, prompts
from armchair.evaluation.report import check_readable, shares
from armchair.evaluation.scene_reader import SceneReader, judge
from armchair.pipelines.clip import CLIP
from armchair.pipelines.drawing import Drawing
from armchair.pipelines.rerank import check_candidates

_KINDS = {"seen": "seen pairs", "held_out": "held-out pairs"}
_AT_ONCE = 64  # pictures drawn, of one prompt or of several


def candidates_curve(
    model: Drawing[Any],
    clip: CLIP,
    *,
    num_prompts: int,
    candidates: int,
    seed: int = 0,
    truncate: bool = False,
    kinds: Sequence[str] = tuple(_KINDS),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Judge the best picture among the first 1, 2, 4, … candidates of each prompt, and of all.

    Args:
        model: What draws; its own sampling settings are used.
        clip: What ranks.
        num_prompts: Prompts of each kind.
        candidates: Pictures of each prompt, at least 1.
        seed: Which prompts, and which samples.
        truncate: Cut prompts that are longer than a model's texts.
        kinds: Of which pairs: "seen", "held_out", or both.
        on_progress: Told (prompts done, prompts in all).

    Returns:
        "counts", the powers of two up to `candidates`, and that; and for each kind of pairs, for
        each count, the shares of pictures that are right, by attribute.

    Raises:
        ConfigError: The model's pictures are too small to be read.
        UsageError: A number is below 1, or a prompt is too long and `truncate` is off.
    """
    check_readable(model)
    check_candidates(candidates, 1)
    powers = [2**power for power in range(candidates.bit_length())]
    counts = sorted({*powers, candidates})
    curve: dict[str, Any] = {"counts": counts}
    reader, done = SceneReader(), 0
    asked = {kind: prompts(kind, num_prompts, seed) for kind in kinds}
    texts = {  # all of them now, as one may be refused
        kind: clip.encode_texts([prompt.text for prompt in of_kind], truncate=truncate)
        for kind, of_kind in asked.items()
    }
    for kind, of_kind in asked.items():
        verdicts: list[list[dict[str, bool | None]]] = []
        drawn = _drawn(model, of_kind, counts[-1], seed=seed, truncate=truncate)
        for prompt, text, pictures in zip(of_kind, texts[kind], drawn, strict=True):
            scores = (clip.encode_pictures(pictures) @ text).cpu()
            best = [int(scores[:count].argmax()) for count in counts]
            read = {i: judge(prompt, reader.read(np.asarray(pictures[i]))) for i in set(best)}
            verdicts.append([read[index] for index in best])
            done += 1
            on_progress(done, len(asked) * num_prompts)
        curve[kind] = [shares(list(column)) for column in zip(*verdicts, strict=True)]
    return curve


def _drawn(
    model: Drawing[Any], asked: Sequence[Prompt], count: int, *, seed: int, truncate: bool
) -> Iterator[list[Image.Image]]:
    """The candidates of each prompt; few candidates of several prompts are drawn at once."""
    together = max(1, _AT_ONCE // count)
    for start in range(0, len(asked), together):
        texts = [prompt.text for prompt in asked[start : start + together]]
        drawn = model.generate(
            texts, count=count, seed=seed, truncate=truncate, batch_size=_AT_ONCE
        )
        for first in range(0, len(drawn), count):
            yield drawn[first : first + count]


def plot_candidates(curve: dict[str, Any], path: Path) -> None:
    """Draw the curve: the share of pictures of which all is right against the candidates.

    Raises:
        UsageError: matplotlib is missing.
        OutputError: The picture cannot be written.
    """
    figure = new_figure(5.0, 3.5)
    axes = figure.add_subplot()
    for kind, title in ((kind, title) for kind, title in _KINDS.items() if kind in curve):
        axes.plot(curve["counts"], [part["all"] for part in curve[kind]], marker="o", label=title)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve["counts"], labels=list(map(str, curve["counts"])))
    axes.set_ylim(0, 1)
    axes.set_xlabel("candidates, of which CLIP keeps the best")
    axes.set_ylabel("all attributes right")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
