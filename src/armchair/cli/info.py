"""`armchair info`: tell what a model is, was trained on, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from armchair.cli.options import read_options


@dataclass(kw_only=True)
class InfoOptions:
    """Tell what a model is, was trained on, and scored: its model card."""

    model: Annotated[str, tyro.conf.Positional] = "dalle1-scenes"
    """A shipped model, a bundle's folder, or a Hugging Face repository."""
    json: bool = False
    """Print the manifest and the scores as JSON instead."""


def run(words: Sequence[str]) -> None:
    """Print what the model's bundle says."""
    options = read_options(InfoOptions, words, verb="info")

    import json

    from armchair.pipelines.bundle import open_bundle
    from armchair.pipelines.bundle_search import find_bundle

    bundle = open_bundle(find_bundle(options.model))
    if options.json:
        print(json.dumps({**bundle.manifest, "evaluation": bundle.evaluation}, indent=2))
        return
    print(bundle.card.strip())
    print(f"\nfolder: {bundle.path}\nsize: {bundle.size_bytes() / 1e6:.1f} MB, checksums match")
