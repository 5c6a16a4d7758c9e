"""`armchair interpolate`: draw the way from one picture to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import SHIPPED_DALLE2, PaintingOptions, read_options

_MAX_PICTURES = 100


@dataclass(kw_only=True)
class InterpolateOptions:
    """Draw the way from one picture to the next, and on to those after it.

    What the pictures mean to a DALL·E 2 and where their details are both change at an even pace.
    Of a picture that is not square the square in its centre is used.

        armchair interpolate mug.png clock.png --count 8
    """

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Two picture files or more, in the order of the way."""
    model: str = SHIPPED_DALLE2
    """A DALL·E 2: a shipped model, a bundle's folder, or a Hugging Face repository."""
    count: int = 9
    """Pictures of the whole way, both ends among them."""
    seed: int = 0
    """Of the noise that the upsamplers begin with."""
    sampling: Annotated[PaintingOptions, tyro.conf.arg(name="")] = field(
        default_factory=PaintingOptions
    )
    """How to draw; the model's own settings if not given, and no guidance."""
    out: Path = field(default_factory=lambda: Path("out"))
    """Folder for the pictures, and for grid.png with all of them."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Draw the way."""
    options = read_options(InterpolateOptions, words, verb="interpolate")

    from armchair.cli.drawn import open_picture, save_pictures, source_of
    from armchair.core.errors import UsageError
    from armchair.pipelines import load

    if not 2 <= len(options.pictures) <= _MAX_PICTURES:
        hint = "armchair interpolate from.png to.png"
        expected = f"2 to {_MAX_PICTURES} files"
        raise UsageError("pictures", got=len(options.pictures), expected=expected, hint=hint)
    pictures = [open_picture(path) for path in options.pictures]
    model = load(options.model, device=options.device, kinds=("dalle2",))
    files = {f"picture{number}": path for number, path in enumerate(options.pictures, start=1)}
    save_pictures(
        lambda advance: model.interpolate(
            pictures,
            count=options.count,
            seed=options.seed,
            on_progress=advance,
            **options.sampling.given(),
        ),
        unit=model.work,
        folder=options.out,
        name=lambda k: f"way-s{options.seed}-{k:02d}.png",
        source=source_of(options.model, **files),
        columns=options.count,
    )
