"""`armchair rank`: say which pictures fit a text best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from armchair.cli.options import SHIPPED_CLIP, read_options
from armchair.core.errors import DataError, UsageError

_MAX_PICTURES = 10_000
_SHEET = 256  # pictures on the contact sheet at most


@dataclass(kw_only=True)
class RankOptions:
    """Rank pictures by how well they fit a text: their scores, best first, and a contact sheet.

    Of each picture the square in its centre is judged.
    """

    prompt: Annotated[str, tyro.conf.Positional]
    """What to look for, in quotes."""
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files."""
    model: str = SHIPPED_CLIP
    """A CLIP, or a DALL·E 2, which has one: a shipped model, a bundle's folder, or a repository."""
    truncate: bool = False
    """Cut a prompt that is longer than the model's text instead of refusing it."""
    out: Path = field(default_factory=lambda: Path("out/ranked.png"))
    """File for the contact sheet, a PNG."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Rank the pictures."""
    options = read_options(RankOptions, words, verb="rank")
    if not 1 <= len(options.pictures) <= _MAX_PICTURES:
        hint = 'armchair rank "a kiwi clock" pictures/*.png'
        expected = f"1 to {_MAX_PICTURES:,} files"
        raise UsageError("pictures", got=len(options.pictures), expected=expected, hint=hint)

    from PIL import Image

    from armchair.cli.progress import console
    from armchair.core.files import check_file
    from armchair.core.images import contact_sheet, save_png
    from armchair.data.pictures import decode_picture
    from armchair.data.transforms import center_crop
    from armchair.pipelines import load_clip

    check_file(options.out)
    clip = load_clip(options.model, device=options.device)
    squares, num_cropped = [], 0
    for path in options.pictures:
        try:
            pixels = decode_picture(path)
        except DataError as error:
            hint = "leave it out, or save it as a PNG"
            raise DataError(f"{path}: {error}", hint=hint) from error
        num_cropped += pixels.shape[0] != pixels.shape[1]
        squares.append(Image.fromarray(center_crop(pixels, clip.model.config.image_size)))
    scores = clip.scores(squares, [options.prompt], truncate=options.truncate)[:, 0].tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    for index in order:
        print(f"{scores[index]:.4f}\t{options.pictures[index]}")
    shown = [squares[index] for index in order[:_SHEET]]
    sheet = contact_sheet(shown, columns=max(1, round(len(shown) ** 0.5)))
    save_png(sheet, options.out, {"prompt": options.prompt, "model": options.model})
    if num_cropped:
        of_all = f"{num_cropped} of {len(squares)} pictures"
        console.print(f"{of_all} are not square: the square in the centre was judged")
    console.print(f"best first: {options.out}")
