"""`armchair evaluate`: measure a model on fresh scenes and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from armchair.cli.options import SamplingOptions, ranking_clip, read_options
from armchair.core.errors import UsageError

_MOST = 100_000  # prompts of a kind, or scenes


@dataclass(kw_only=True)
class EvaluateOptions:
    """Measure a model of scenes: what it draws and how well it knows its data, or what it finds."""

    model: Annotated[str, tyro.conf.Positional] = "dalle1-scenes"
    """A shipped model, a bundle's folder, or a Hugging Face repository."""
    json: Path | None = None
    """File for the scores; they are printed as well."""
    pictures: Path | None = None
    """Folder for sheets of what was drawn, right and wrong."""
    prompts: int | None = None
    """Prompts of each kind: seen pairs, held-out pairs, and relations; 512 if not given."""
    scenes: int | None = None
    """DALL·E 1: fresh pictures for the codebook's use; 4,096 if not given, and a quarter of
    them are reconstructed and read."""
    seed: int = 0
    """Which prompts, pictures and samples."""
    truncate: bool = False
    """Cut captions and prompts that are too long for the model instead of refusing them."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(
        default_factory=SamplingOptions
    )
    """Sampling settings, where they are to differ from the model's own."""
    candidates: int | None = None
    """Draw so many pictures of each prompt too, and judge the best-ranked of 1, 2, 4, … of them."""
    clip: str | None = None
    """The CLIP that ranks candidates; if not given a DALL·E 2's own, or for a model that ships the
    one that ships with it."""
    record: bool = False
    """Put the scores into the bundle and its model card, and make these settings its own."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Measure the model."""
    options = read_options(EvaluateOptions, words, verb="evaluate")

    import json

    from armchair.core.figures import check_plots
    from armchair.core.files import check_file, finite_or_null, make_folder, write_text
    from armchair.evaluation.candidates import plot_candidates
    from armchair.pipelines.bundle import open_bundle, record_scores
    from armchair.pipelines.bundle_search import find_bundle
    from armchair.pipelines.card import with_scores

    bundle = open_bundle(find_bundle(options.model))
    card = bundle.card if options.record else ""  # read now, as it may be damaged
    for folder in (options.pictures, bundle.path if options.record else None):
        if folder is not None:
            make_folder(folder)
    if options.json is not None:
        check_file(options.json)
    if options.pictures is not None and options.candidates is not None:
        check_plots()
    measure = _measure_clip if bundle.kind == "clip" else _measure_drawing
    scores, changes = measure(options, bundle)
    text = json.dumps(finite_or_null(scores), indent=2)
    print(text)
    if options.json is not None:
        write_text(options.json, text + "\n")
    if options.record:
        built_from = {**bundle.manifest["config"], **changes}
        record_scores(bundle, text + "\n", card=with_scores(card, scores), config=built_from)
    if options.pictures is not None and "candidates" in scores:
        plot_candidates(scores["candidates"], options.pictures / "candidates.png")


def _measure_drawing(
    options: EvaluateOptions, bundle: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores, and what changes in the bundle's config; sheets are written on the way."""
    from armchair.cli.progress import progress_bar
    from armchair.core.config import to_dict
    from armchair.core.images import contact_sheet, save_png
    from armchair.evaluation.candidates import candidates_curve
    from armchair.evaluation.report import EvaluationConfig, evaluate
    from armchair.pipelines import load

    if options.scenes is not None and bundle.kind != "dalle1":
        expected = f"nothing, as {bundle.name} has no codebook to measure"
        raise UsageError("scenes", got=options.scenes, expected=expected, hint="leave it out")
    if options.clip is not None and options.candidates is None:
        hint = "say how many candidates it is to choose from: --candidates 16"
        raise UsageError("clip", got=options.clip, expected="none, as nothing is ranked", hint=hint)
    for name in ("prompts", "scenes"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= _MOST:
            hint = "a few hundred tell models apart"
            raise UsageError(name, got=value, expected=f"1 to {_MOST:,}", hint=hint)
    num_prompts = 512 if options.prompts is None else options.prompts
    num_pictures = 4096 if options.scenes is None else options.scenes
    config = EvaluationConfig(
        num_prompts=num_prompts,
        num_pictures=num_pictures,
        num_reconstructions=max(1, num_pictures // 4),
        seed=options.seed,
        truncate=options.truncate,
    )
    model = load(options.model, device=options.device)
    model.sampling = model.settings(**options.sampling.given())
    curve: dict[str, Any] = {}
    if options.candidates is not None:
        clip, _ = ranking_clip(model, options.clip, own=options.model, device=options.device)
        with progress_bar("candidates", "prompts") as advance:
            curve["candidates"] = candidates_curve(
                model,
                clip,
                num_prompts=num_prompts,
                candidates=options.candidates,
                seed=options.seed,
                truncate=options.truncate,
                on_progress=advance,
            )
    with progress_bar("measuring", "pictures") as advance:
        evaluation = evaluate(
            model, config, on_progress=lambda what, done, total: advance(done, total)
        )
    if options.pictures is not None:
        for kind, drawn in evaluation.drawn.items():
            for verdict, name in ((True, "right"), (False, "wrong")):
                chosen = [picture for _, picture, v in drawn if v["all"] is verdict][:96]
                if chosen:
                    sheet = contact_sheet(chosen, columns=12)
                    save_png(sheet, options.pictures / f"{kind}-{name}.png", {})
    return {**evaluation.scores, **curve}, {"sampling": to_dict(model.sampling)}


def _measure_clip(options: EvaluateOptions, bundle: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from armchair.core.device import resolve_device
    from armchair.evaluation.clip_report import evaluate_clip
    from armchair.pipelines.clip import CLIP

    names = ("candidates", "clip", "pictures", "prompts", "scenes")
    given = {name: getattr(options, name) for name in names} | options.sampling.given()
    for name, value in given.items():
        if value is not None:
            hint = "leave it out"
            expected = f"nothing, as {bundle.name} is a CLIP and draws no pictures"
            raise UsageError(name, got=value, expected=expected, hint=hint)
    clip = CLIP.load(bundle, resolve_device(options.device))
    return evaluate_clip(clip, seed=options.seed, truncate=options.truncate), {}
