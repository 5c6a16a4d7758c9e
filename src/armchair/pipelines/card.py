"""Model cards: what a model is, how it was made, what it scored, and where its limits are."""

from __future__ import annotations

import re
from typing import Any

_SCORES = re.compile(r"^## Scores\s*$.*?(?=^#{1,2} |\Z)", re.MULTILINE | re.DOTALL)
_BEFORE_LIMITS = re.compile(r"^(?=## Limits\b)|\Z", re.MULTILINE)


def model_card(name: str, about: dict[str, Any], evaluation: dict[str, Any] | None) -> str:
    """A model card in Markdown; what `about` does not say is left out.

    Args:
        name: The model's name.
        about: A bundle's "about": `recipe` (config, commit, version), `description`, `command`,
            `pictures` (how many it was trained on), `taken_from` (the bundle of a part that
            was not trained), `started_from` (the bundle whose networks were trained further),
            `hardware`, `date`, `notes`, `licence`.
        evaluation: What `armchair evaluate` measured, if it has.
    """
    source = _at(about, "recipe", "config", "data", "source")
    licence = about.get("licence") or ("Apache-2.0" if source == "scenes" else None)
    lines = [
        f"# {name}",
        "",
        *([f"{about['description']}", ""] if about.get("description") else []),
        "## How it was made",
        "",
        *(f"- {what}: {value}" for what, value in _facts(about).items() if value is not None),
        *(f"- {note}" for note in about.get("notes") or []),
        "",
        "## Limits",
        "",
        "It knows only what its data shows: names, styles and scenes outside of it become the "
        "nearest thing it knows, or nonsense.",
        *(["", f"Licence: {licence}."] if licence else []),
    ]
    card = "\n".join(lines) + "\n"
    return card if evaluation is None else with_scores(card, evaluation)


def with_scores(card: str, evaluation: dict[str, Any]) -> str:
    """A model card with new scores in place of its old ones; all else stays as it is.

    Args:
        card: The card; without scores it gets them before its limits, or at its end.
        evaluation: What `armchair evaluate` measured.
    """
    place = _SCORES.search(card) or _BEFORE_LIMITS.search(card)
    start, end = place.span() if place else (len(card), len(card))
    section = "\n".join(["## Scores", "", *_scores(evaluation)])
    parts = (card[:start].rstrip("\n"), section, card[end:].rstrip("\n"))
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(about: dict[str, Any]) -> dict[str, Any]:
    recipe, command = _at(about, "recipe"), about.get("command")
    commit, version = _at(recipe, "commit"), _at(recipe, "version")
    return {
        "command": command and f"`{command}`",
        "commit": commit and (f"{commit}, version {version}" if version else commit),
        "version": None if commit else version,
        "seed": _seed(_at(recipe, "config")),
        "data": _data(about),
        _at(about, "taken_from", "stage") or "autoencoder": _taken(about.get("taken_from")),
        "started from": _named(about.get("started_from")),
        "hardware": about.get("hardware"),
        "date": about.get("date"),
    }


def _seed(config: Any) -> Any:
    """Of the stage that the model is named for."""
    seeds = (
        _at(config, f"{stage}_training", "seed") for stage in ("transformer", "decoder", "clip")
    )
    return next((seed for seed in seeds if seed is not None), None)


def _data(about: dict[str, Any]) -> str | None:
    data = _at(about, "recipe", "config", "data")
    source, pictures = _at(data, "source"), about.get("pictures")
    if pictures is None and source == "scenes":  # the recipe's number is that of scenes alone
        pictures = _at(data, "num_pictures")
    counted = f"{pictures:,} pictures" if isinstance(pictures, int) else None
    return ", ".join(part for part in (source, counted) if part) or None


def _taken(source: Any) -> str | None:
    name = _named(_at(source, "bundle") or source)
    return f"taken from {name}" if name else None


def _named(bundle: Any) -> str | None:
    return f"the bundle {bundle}" if isinstance(bundle, str) else None


def _at(data: Any, *keys: str) -> Any:
    """What stands at a path of nested dictionaries; None where the path breaks off."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _scores(evaluation: dict[str, Any]) -> list[str]:
    if "seen" not in evaluation:
        return _clip_scores(evaluation)
    settings = evaluation["settings"]
    rows = ["| what | score |", "|---|---|"]
    if "codebook" in evaluation:
        reconstruction, codebook = evaluation["reconstruction"], evaluation["codebook"]
        bits = evaluation["bits"]
        rows += [
            f"| codebook in use | {codebook['used_fraction']:.1%}, "
            f"perplexity {codebook['perplexity']:.0f} |",
            f"| reconstruction PSNR | {reconstruction['psnr_db']:.1f} dB |",
            f"| reader's accuracy on reconstructions | {reconstruction['reader_accuracy']:.1%} |",
            f"| validation loss | {bits['validation']:.3f} bits a code |",
            f"| true ELBO | {bits['true_elbo']:.3f} bits a dimension |",
        ]
    titles = {
        "seen": "seen pairs",
        "held_out": "held-out pairs",
        "relations": "two objects with a relation",
    }
    for key, title in titles.items():
        part = evaluation[key]
        detail = ", ".join(
            f"{name} {part[name]:.1%}"
            for name in ("object", "material", "background", "size", "relation")
            if part.get(name) is not None
        )
        rows.append(f"| all attributes right, {title} | **{part['all']:.1%}** ({detail}) |")
    if curve := evaluation.get("candidates"):
        for key in ("seen", "held_out"):
            best = f"best of {curve['counts'][-1]} by CLIP, {titles[key]}"
            rows.append(f"| all attributes right, {best} | {curve[key][-1]['all']:.1%} |")
    if "retrieval" in evaluation:
        rows += _clip_rows(evaluation)
    shown = ", ".join(f"{key} {value}" for key, value in settings["sampling"].items())
    return [
        *rows,
        "",
        f"Measured on fresh scenes and prompts, one sample each ({shown}; seed "
        f"{settings['seed']}), by `armchair evaluate`.",
    ]


def _clip_scores(evaluation: dict[str, Any]) -> list[str]:
    return [
        "| what | score |",
        "|---|---|",
        *_clip_rows(evaluation),
        "",
        f"Measured on {evaluation['retrieval']['pictures']} fresh scenes, each of which has a "
        f"caption that is true of no other (seed {evaluation['settings']['seed']}), by "
        "`armchair evaluate`.",
    ]


def _clip_rows(evaluation: dict[str, Any]) -> list[str]:
    retrieval, zero_shot = evaluation["retrieval"], evaluation["zero_shot"]
    rows = {
        "CLIP: picture to caption, recall at 1 / 5": ("caption_recall_1", "caption_recall_5"),
        "CLIP: caption to picture, recall at 1 / 5": ("picture_recall_1", "picture_recall_5"),
    }
    pairs = " / ".join(f"{evaluation['pairs'][kind]:.1%}" for kind in ("seen", "held_out"))
    classes = " / ".join(f"{zero_shot[name]:.1%}" for name in ("object", "material", "background"))
    return [
        *(
            f"| {what} | {' / '.join(f'{retrieval[name]:.1%}' for name in names)} |"
            for what, names in rows.items()
        ),
        f"| CLIP: object / material / background, zero-shot | {classes} |",
        f"| CLIP: which of all pairs, seen / held out | {pairs} |",
    ]
