"""Model cards: what a model is, how it was made, what it scored, and where its limits are."""

from __future__ import annotations

from typing import Any


def model_card(name: str, about: dict[str, Any], evaluation: dict[str, Any] | None) -> str:
    """A model card in Markdown.

    Args:
        name: The model's name.
        about: A bundle's "about".
        evaluation: What `armchair evaluate` measured, if it has.
    """
    recipe = about.get("recipe", {})
    config = recipe.get("config", {})
    lines = [
        f"# {name}",
        "",
        about.get("description", ""),
        "",
        "## How it was made",
        "",
        f"- command: `{about.get('command', 'unknown')}`",
        f"- commit: {recipe.get('commit') or 'unknown'}, version {recipe.get('version')}",
        f"- seed: {config.get('transformer_training', {}).get('seed')}",
        f"- data: {config.get('data', {}).get('source')}, "
        f"{config.get('data', {}).get('num_pictures'):,} pictures",
        f"- hardware: {about.get('hardware')}",
        f"- date: {about.get('date')}",
        *(f"- {note}" for note in about.get("notes", [])),
    ]
    if evaluation is not None:
        lines += ["", "## Scores", "", *_scores(evaluation)]
    lines += [
        "",
        "## Limits",
        "",
        "It draws only what its data shows: names, styles and scenes outside of it come out as the "
        "nearest thing it knows, or as nonsense.",
        "",
        "Licence: Apache-2.0.",
    ]
    return "\n".join(lines) + "\n"


def _scores(evaluation: dict[str, Any]) -> list[str]:
    reconstruction, codebook = evaluation["reconstruction"], evaluation["codebook"]
    bits, settings = evaluation["bits"], evaluation["settings"]
    rows = [
        "| what | score |",
        "|---|---|",
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
    shown = ", ".join(f"{key} {value}" for key, value in settings["sampling"].items())
    return [
        *rows,
        "",
        f"Measured on fresh scenes and prompts, one sample each ({shown}; seed "
        f"{settings['seed']}), by `armchair evaluate`.",
    ]
