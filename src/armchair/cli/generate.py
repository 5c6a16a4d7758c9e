"""`armchair generate`: draw pictures from prompts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import tyro

from armchair.cli.options import SamplingOptions, ranking_clip, read_options
from armchair.core.errors import UsageError

_MAX_PROMPTS = 10_000
_SLUG_LENGTH, _MARK_LENGTH = 48, 6


@dataclass(kw_only=True)
class GenerateOptions:
    """Draw pictures from prompts, into PNG files that remember how they were drawn."""

    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What to draw; each in quotes. "-" reads prompts from standard input, a line each. None for a
    model that reads no captions."""
    prompts_file: Path | None = None
    """A text file of prompts, a line each."""
    model: str = "dalle1-scenes"
    """A shipped model, a bundle's folder, or a Hugging Face repository."""
    count: int = 1
    """Pictures of each prompt."""
    candidates: int | None = None
    """Draw so many pictures of each prompt, and keep the --count that CLIP ranks best."""
    clip: str | None = None
    """The CLIP that ranks candidates; if not given a DALL·E 2's own, or for a model that ships the
    one that ships with it."""
    seed: int = 0
    """The same seed draws the same pictures, whatever else is drawn beside them."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(
        default_factory=SamplingOptions
    )
    """How to draw; the model's own settings if not given."""
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

    from armchair.cli.drawn import save_pictures
    from armchair.pipelines import DRAWING, load
    from armchair.pipelines.rerank import check_candidates

    source, clip = {"model": options.model}, None
    model = load(options.model, device=options.device, kinds=DRAWING)
    if not prompts and model.tokenizer is not None:
        hint = 'armchair generate "an armchair in the shape of an avocado"'
        raise UsageError("prompts", got=[], expected="at least one", hint=hint)
    if options.clip is not None and options.candidates is None:
        hint = "say how many candidates it is to choose from: --candidates 16"
        raise UsageError("clip", got=options.clip, expected="none, as nothing is ranked", hint=hint)
    if options.candidates is not None:
        check_candidates(options.candidates, options.count)
        clip, name = ranking_clip(model, options.clip, own=options.model, device=options.device)
        source |= {"candidates": str(options.candidates), "clip": name}
    save_pictures(
        lambda advance: _pictures(model, clip, prompts, options, advance),
        unit=model.work,
        folder=options.out,
        name=lambda number: _file_name(prompts or ["picture"], number, options),
        source=source,
        columns=options.count if len(prompts) > 1 else None,
    )


def _pictures(
    model: Any,
    clip: Any,
    prompts: list[str],
    options: GenerateOptions,
    advance: Callable[..., None],
) -> Iterator[Any]:
    """The pictures to keep, as they are drawn: all, or those that a CLIP ranks best."""
    from armchair.pipelines.rerank import keep_best

    drawn = options.candidates or options.count
    pictures = model.stream(
        prompts,
        count=drawn,
        seed=options.seed,
        truncate=options.truncate,
        on_progress=advance,
        **options.sampling.given(),
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
        prompts += _lines(sys.stdin.read, "standard input") if prompt == "-" else [prompt]
    if options.prompts_file is not None:
        path = options.prompts_file
        prompts += _lines(lambda: path.read_text("utf-8"), f"prompts_file {path}")
    if len(prompts) > _MAX_PROMPTS:
        hint = "draw them in parts"
        expected = f"at most {_MAX_PROMPTS:,}"
        raise UsageError("prompts", got=len(prompts), expected=expected, hint=hint)
    return prompts


def _lines(read: Callable[[], str], source: str) -> list[str]:
    try:
        text = read().removeprefix("\ufeff")  # a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        hint = "give text in UTF-8 with a prompt on each line"
        raise UsageError(f"{source} cannot be read ({error})", hint=hint) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _slug(prompt: str) -> str:
    """A prompt as a part of a file's name; one that is cut keeps a mark of its whole."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")
    if len(words) <= _SLUG_LENGTH:
        return words or "picture"
    mark = sha256(prompt.encode()).hexdigest()[:_MARK_LENGTH]
    return f"{words[: _SLUG_LENGTH - _MARK_LENGTH - 1].rstrip('-')}-{mark}"
