"""`armchair evaluate`: measure a model on fresh scenes and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import read_options


@dataclass(kw_only=True)
class EvaluateOptions:
    """Measure a model of scenes: reconstructions, codebook, likelihood, and what it draws."""

    model: Annotated[str, tyro.conf.Positional] = "dalle1-scenes"
    """A shipped model, a bundle's folder, or a Hugging Face repository."""
    json: Path | None = None
    """File for the scores; they are printed as well."""
    pictures: Path | None = None
    """Folder for sheets of what was drawn, right and wrong."""
    prompts: int = 512
    """Prompts of each kind: seen pairs, held-out pairs, and relations."""
    scenes: int = 4096
    """Fresh pictures for the codebook's use; a quarter of them are reconstructed and read."""
    seed: int = 0
    """Which prompts, pictures and samples."""
    truncate: bool = False
    """Cut captions and prompts that are too long for the model instead of refusing them."""
    temperature: float | None = None
    """Sampling settings, where they are to differ from the model's own; see `armchair generate`."""
    top_k: int | None = None
    """Draw each code among this many likeliest image codes."""
    top_p: float | None = None
    """Draw each code among the likeliest that together have this probability."""
    guidance_scale: float | None = None
    """Above 1, the prompt counts for more."""
    record: bool = False
    """Put the scores into the bundle and its model card, and make these settings its own."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Measure the model."""
    options = read_options(EvaluateOptions, words, verb="evaluate")

    import json

    from armchair.cli.progress import progress_bar
    from armchair.core.config import to_dict
    from armchair.core.device import resolve_device
    from armchair.core.files import finite_or_null, make_folder, write_text
    from armchair.core.images import contact_sheet, save_png
    from armchair.evaluation.report import EvaluationConfig, evaluate
    from armchair.pipelines.bundle import EVALUATION, add_to_bundle, find_bundle, open_bundle
    from armchair.pipelines.card import with_scores
    from armchair.pipelines.dalle1 import DALLE1

    config = EvaluationConfig(
        num_prompts=options.prompts,
        num_pictures=options.scenes,
        num_reconstructions=max(1, options.scenes // 4),
        seed=options.seed,
        truncate=options.truncate,
    )
    bundle = open_bundle(find_bundle(options.model))
    card = bundle.card if options.record else ""  # read now, as it may be damaged
    written_to = (
        options.json.parent if options.json else None,
        options.pictures,
        bundle.path if options.record else None,
    )
    for folder in written_to:
        if folder is not None:
            make_folder(folder)
    model = DALLE1.load(bundle, resolve_device(options.device))
    model.sampling = model.settings(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        guidance_scale=options.guidance_scale,
    )
    with progress_bar("measuring", "pictures") as advance:
        evaluation = evaluate(
            model, config, on_progress=lambda what, done, total: advance(done, total)
        )
    text = json.dumps(finite_or_null(evaluation.scores), indent=2)
    print(text)
    if options.json is not None:
        write_text(options.json, text + "\n")
    if options.pictures is not None:
        for kind, drawn in evaluation.drawn.items():
            for verdict, name in ((True, "right"), (False, "wrong")):
                chosen = [picture for _, picture, v in drawn if v["all"] is verdict][:96]
                if chosen:
                    sheet = contact_sheet(chosen, columns=12)
                    save_png(sheet, options.pictures / f"{kind}-{name}.png", {})
    if options.record:
        built_from = {**bundle.manifest["config"], "sampling": to_dict(model.sampling)}
        add_to_bundle(
            bundle,
            {EVALUATION: text + "\n"},
            card=with_scores(card, evaluation.scores),
            config=built_from,
        )
