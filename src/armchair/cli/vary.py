"""`armchair vary`: draw variations of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import SHIPPED_DALLE2, PaintingOptions, read_options


@dataclass(kw_only=True)
class VaryOptions:
    """Draw variations of a picture: other pictures that mean the same to a DALL·E 2.

    The picture is seen by the model's CLIP, and what that keeps of it is drawn anew; what it does
    not keep, such as the place of a detail, changes. Of a picture that is not square the square in
    its centre is used.

        armchair vary armchair.png --count 9 --eta 0.8
    """

    picture: Annotated[Path, tyro.conf.Positional]
    """A picture file."""
    model: str = SHIPPED_DALLE2
    """A DALL·E 2: a shipped model, a bundle's folder, or a Hugging Face repository."""
    count: int = 9
    """How many variations."""
    eta: float = 1.0
    """How far they go: at 0 all are the picture, as well as the model can draw it; at 1 its details
    are drawn anew."""
    seed: int = 0
    """The same seed draws the same variations."""
    sampling: Annotated[PaintingOptions, tyro.conf.arg(name="")] = field(
        default_factory=PaintingOptions
    )
    """How to draw; the model's own settings if not given, but no guidance, and where --eta is above
    0, 100 steps of the decoder, as its noise wants many."""
    out: Path = field(default_factory=lambda: Path("out"))
    """Folder for the pictures, and for grid.png with all of them."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Draw the variations."""
    options = read_options(VaryOptions, words, verb="vary")

    from armchair.cli.drawn import open_picture, save_pictures, source_of
    from armchair.pipelines import load

    picture = open_picture(options.picture)
    model = load(options.model, device=options.device, kinds=("dalle2",))
    save_pictures(
        lambda advance: model.variations(
            picture,
            count=options.count,
            seed=options.seed,
            eta=options.eta,
            on_progress=advance,
            **options.sampling.given(),
        ),
        unit=model.work,
        folder=options.out,
        name=lambda k: f"{options.picture.stem}-varied-s{options.seed}-{k:02d}.png",
        source=source_of(options.model, picture=options.picture),
    )
