"""`armchair redraw`: draw a prompt over a picture, or over a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import SHIPPED_DALLE2, DiffusionOptions, read_options


@dataclass(kw_only=True)
class RedrawOptions:
    """Draw a prompt over a picture: over all of it, or over the part that a mask shows in white.

    Without a mask the forms of the picture shine through, the more the smaller --strength. With a
    mask (inpainting) what is white in it is painted anew, and what is black stays as it is. Of a
    picture that is not square the square in its centre is used.

        armchair redraw mug.png "a kiwi mug" --strength 0.5
        armchair redraw mug.png "a mug on a blue background" --mask mask.png
    """

    picture: Annotated[Path, tyro.conf.Positional]
    """A picture file."""
    prompt: Annotated[str | None, tyro.conf.Positional] = None
    """What the whole result is to show, in quotes; none for a model that reads no captions."""
    model: str = SHIPPED_DALLE2
    """A DALL·E 2 or a GLIDE: a shipped model, a bundle's folder, or a Hugging Face repository."""
    mask: Path | None = None
    """A picture file of the same size, without colours: white, or what is transparent, is painted
    anew, and black stays."""
    strength: float | None = None
    """How much noise is laid over the picture first, above 0 and at most 1, where nothing of it
    shows through. 0.6 if not given, and 1 with a mask."""
    count: int = 4
    """How many pictures."""
    seed: int = 0
    """The same seed draws the same pictures."""
    truncate: bool = False
    """Cut a prompt that is longer than the model's text instead of refusing it."""
    sampling: Annotated[DiffusionOptions, tyro.conf.arg(name="")] = field(
        default_factory=DiffusionOptions
    )
    """How to draw; the model's own settings if not given."""
    out: Path = field(default_factory=lambda: Path("out"))
    """Folder for the pictures, and for grid.png with all of them."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Draw over the picture."""
    options = read_options(RedrawOptions, words, verb="redraw")

    from armchair.cli.drawn import open_picture, save_pictures, source_of
    from armchair.pipelines import load

    picture = open_picture(options.picture)
    mask = None if options.mask is None else open_picture(options.mask)
    model = load(options.model, device=options.device, kinds=("dalle2",))
    save_pictures(
        lambda advance: model.redraw(
            picture,
            options.prompt,
            mask=mask,
            strength=options.strength,
            count=options.count,
            seed=options.seed,
            truncate=options.truncate,
            on_progress=advance,
            **options.sampling.given(),
        ),
        unit=model.work,
        folder=options.out,
        name=lambda k: f"{options.picture.stem}-redrawn-s{options.seed}-{k:02d}.png",
        source=source_of(options.model, picture=options.picture, mask=options.mask),
    )
