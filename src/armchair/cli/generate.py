"""`armchair generate`: draw pictures from prompts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from armchair.cli.options import named_clip, read_options
from armchair.core.errors import UsageError

_MAX_PROMPTS = 10_000
_SLUG_LENGTH = 48
_GRID = 256  # pictures in grid.png at most


@dataclass(kw_only=True)
class GenerateOptions:
    """Draw pictures from prompts, into PNG files that remember how they were drawn."""

    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What to draw; each in quotes. "-" reads prompts from standard input, a line each."""
    prompts_file: Path | None = None
    """A text file of prompts, a line each."""
    model: str = "dalle1-scenes"
    """A shipped model, a bundle's folder, or a Hugging Face repository."""
    count: int = 1
    """Pictures of each prompt."""
    candidates: int | None = None
    """Draw so many pictures of each prompt, and keep the --count that CLIP ranks best."""
    clip: str | None = None
    """The CLIP that ranks candidates: a bundle's folder, or a Hugging Face repository."""
    seed: int = 0
    """The same seed draws the same pictures, whatever else is drawn beside them."""
    temperature: float | None = None
    """Below 1 draws likelier pictures; the model's own default if not given."""
    top_k: int | None = None
    """Draw each code among this many likeliest image codes."""
    top_p: float | None = None
    """Draw each code among the likeliest that together have this probability."""
    guidance_scale: float | None = None
    """Above 1, the prompt counts for more."""
    truncate: bool = False
    """Cut prompts that are longer than the model's text instead of refusing them."""
    out: Path = field(default_factory=lambda: Path("out"))
    """Folder for the pictures."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""


def run(words: Sequence[str]) -> None:
    """Draw what the words ask for; a picture is on disk as soon as its batch is drawn."""
    options = read_options(GenerateOptions, words, verb="generate")
    prompts = _prompts(options)

    from armchair.cli.progress import console, progress_bar
    from armchair.core.files import make_folder
    from armchair.core.images import contact_sheet, save_png
    from armchair.pipelines import DRAWING, load
    from armchair.pipelines.rerank import check_candidates

    folder, source, clip = make_folder(options.out), {"model": options.model}, None
    model = load(options.model, device=options.device, kinds=DRAWING)
    if options.candidates is not None:
        check_candidates(options.candidates, options.count)
        clip = load(named_clip(options.clip), device=options.device, kinds=("clip",))
        source |= {"candidates": str(options.candidates), "clip": named_clip(options.clip)}
    saved, shown = list[Path](), []
    try:
        with progress_bar("drawing", "tokens") as advance:
            pictures = _pictures(model, clip, prompts, options, advance)
            for number, picture in enumerate(pictures):
                path = folder / _file_name(prompts, number, options)
                save_png(picture, path, source)
                saved.append(path)
                shown += [picture] if number < _GRID else []
    finally:  # after the bar, which takes standard output for itself
        for path in saved:
            print(path)
    if len(shown) > 1:
        columns = min(options.count if len(prompts) > 1 else _square(len(shown)), 16)
        save_png(contact_sheet(shown, columns=columns), folder / "grid.png", source)
        print(folder / "grid.png")
    of_them = f", the first {_GRID} in grid.png" if len(saved) > _GRID else ""
    console.print(f"{len(saved)} pictures in {folder}{of_them}")


def _pictures(
    model: Any,
    clip: Any,
    prompts: list[str],
    options: GenerateOptions,
    advance: Callable[[int, int], None],
) -> Iterator[Any]:
    """The pictures to keep, as they are drawn: all, or those that a CLIP ranks best."""
    from armchair.pipelines.rerank import keep_best

    drawn = options.candidates or options.count
    pictures = model.stream(
        prompts,
        count=drawn,
        seed=options.seed,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        guidance_scale=options.guidance_scale,
        truncate=options.truncate,
        on_progress=advance,
    )
    if clip is None:
        return pictures
    return keep_best(
        pictures,
        prompts,
        clip,
        candidates=drawn,
        count=options.count,
        truncate=options.truncate,
    )


def _file_name(prompts: list[str], number: int, options: GenerateOptions) -> str:
    which, k = divmod(number, options.count)
    name = f"{_slug(prompts[which])}-s{options.seed}-{k:02d}.png"
    return f"{which:03d}-{name}" if len(prompts) > 1 else name


def _prompts(options: GenerateOptions) -> list[str]:
    prompts = []
    for prompt in options.prompts:
        prompts += _lines(sys.stdin.read()) if prompt == "-" else [prompt]
    if options.prompts_file is not None:
        try:
            prompts += _lines(options.prompts_file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"prompts_file {options.prompts_file} cannot be read ({error})",
                hint="give a text file in UTF-8 with a prompt on each line",
            ) from error
    if not prompts:
        hint = 'armchair generate "an armchair in the shape of an avocado"'
        raise UsageError("prompts", got=[], expected="at least one", hint=hint)
    if len(prompts) > _MAX_PROMPTS:
        hint = "draw them in parts"
        expected = f"at most {_MAX_PROMPTS:,}"
        raise UsageError("prompts", got=len(prompts), expected=expected, hint=hint)
    return prompts


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _slug(prompt: str) -> str:
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")
    return words[:_SLUG_LENGTH].rstrip("-") or "picture"


def _square(count: int) -> int:
    return max(1, round(count**0.5))
