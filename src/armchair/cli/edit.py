"""`armchair edit`: move a picture by the difference of two texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import SHIPPED_DALLE2, PaintingOptions, read_options


@dataclass(kw_only=True)
class EditOptions:
    """Move a picture by the difference of two texts, step by step.

    Say what the picture shows, and what it is to show; what both texts share stays. To paint over a
    part of a picture, or to draw another thing in its forms, see `armchair redraw`.

        armchair edit mug.png "a lemon mug" "a kiwi mug" --theta 0.4
    """

    picture: Annotated[Path, tyro.conf.Positional]
    """A picture file."""
    before: Annotated[str, tyro.conf.Positional]
    """What it shows, in quotes."""
    after: Annotated[str, tyro.conf.Positional]
    """What it is to show, in quotes."""
    model: str = SHIPPED_DALLE2
    """A DALL·E 2: a shipped model, a bundle's folder, or a Hugging Face repository."""
    theta: float = 0.4
    """How far to go, above 0 and at most 1; from 0.25 to 0.5 the picture stays recognisable."""
    count: int = 5
    """Pictures on the way, from the picture itself on; 1 for the last alone."""
    seed: int = 0
    """Of the noise that the upsamplers begin with."""
    truncate: bool = False
    """Cut texts that are longer than the model's instead of refusing them."""
    sampling: Annotated[PaintingOptions, tyro.conf.arg(name="")] = field(
        default_factory=PaintingOptions
    )
    """How to draw; the model's own settings if not given, and no guidance."""
    out: Path = field(default_factory=lambda: Path("out"))
    """Folder for the pictures, and for grid.png with all of them."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Move the picture."""
    options = read_options(EditOptions, words, verb="edit")

    from armchair.cli.drawn import open_picture, save_pictures, source_of
    from armchair.pipelines import load

    picture = open_picture(options.picture)
    model = load(options.model, device=options.device, kinds=("dalle2",))
    save_pictures(
        lambda advance: model.edit(
            picture,
            options.before,
            options.after,
            theta=options.theta,
            count=options.count,
            seed=options.seed,
            truncate=options.truncate,
            on_progress=advance,
            **options.sampling.given(),
        ),
        unit=model.work,
        folder=options.out,
        name=lambda k: f"{options.picture.stem}-edited-s{options.seed}-{k:02d}.png",
        source=source_of(options.model, picture=options.picture),
        columns=options.count,
    )
