"""`armchair models`: list the models that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import read_options


@dataclass(kw_only=True)
class ModelsOptions:
    """List the models that come with the package, and those in the folders given."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders to search for bundles, with their subfolders."""


def run(words: Sequence[str]) -> None:
    """List the models."""
    options = read_options(ModelsOptions, words, verb="models")

    from armchair.core.errors import BundleError, UsageError
    from armchair.pipelines.bundle import open_bundle
    from armchair.pipelines.bundle_search import SHIPPED, bundles_below, shipped_bundles

    paths = [SHIPPED / name for name in shipped_bundles()]
    for folder in options.folders:
        if not folder.is_dir():
            hint = "give a folder that holds bundles, such as a run of `armchair train`"
            raise UsageError("folder", got=str(folder), expected="a folder", hint=hint)
        paths += bundles_below(folder)
    for path in paths:
        shown = path.name if path.parent == SHIPPED else str(path)
        try:
            bundle = open_bundle(path)
        except BundleError as error:
            print(f"{shown}\tdamaged: {str(error).splitlines()[0]}")
            continue
        description = bundle.manifest["about"].get("description", "")
        print(f"{shown}\t{bundle.kind}\t{bundle.size_bytes() / 1e6:.1f} MB\t{description}")
