"""Progress on standard error: bars with rates and time left, and plain lines where nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from armchair.pipelines.drawing import Forming
from armchair.training.observers import Kind, Observer

console = Console(stderr=True, highlight=False)

_LINE_EVERY = 30.0  # seconds between two lines where standard error is no terminal
_PICTURE_EVERY = 0.2  # seconds between two looks at what is being drawn
_PICTURE_SIDE = 32  # characters

Advance = Callable[..., None]
"""Called with (done, total), and with what gives the pictures that are being drawn, if any."""

_SHOWN = (
    "loss",
    "psnr_db",
    "codes_used",
    "text_bits",
    "image_bits",
    "true_elbo_bits",
    "caption_recall_1",
    "picture_recall_1",
    "cosine",
    "simple",
    "bits",
)


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s")


class _Bar(Progress):
    """A bar, and perhaps a picture below it."""

    picture: Text | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.picture is not None:
            yield self.picture


def _bar(unit: str) -> _Bar:
    return _Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Advance]:
    """A bar that is told (done, total), and perhaps how to see what is being drawn.

    On a terminal the first of the pictures is shown below the bar, as it forms; elsewhere a line
    now and then says how far it is. What is refused before it starts leaves no bar.

    Yields:
        The function to tell it.
    """
    shown, spoke = 0.0, time.monotonic()
    with _bar(unit) as bar:
        task = bar.add_task(description, total=None)

        def advance(done: int, total: int, forming: Forming | None = None) -> None:
            nonlocal shown, spoke
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not console.is_terminal and now - spoke >= _LINE_EVERY:
                console.print(f"{description}: {done:,} of {total:,} {unit}")
                spoke = now
            if forming is not None and console.is_terminal and now - shown >= _PICTURE_EVERY:
                bar.picture, shown = in_blocks(forming()[0]), now

        try:
            yield advance
        finally:
            bar.picture = None
            bar.live.transient = bar.tasks[task].total is None


def in_blocks(picture: Image.Image) -> Text:
    """A picture as coloured half blocks, two pixels in each."""
    small = picture.convert("RGB").resize((_PICTURE_SIDE, _PICTURE_SIDE))
    rows = np.asarray(small).tolist()
    text = Text()
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        for one, other in zip(above, below, strict=True):
            text.append(
                "▀", f"rgb({one[0]},{one[1]},{one[2]}) on rgb({other[0]},{other[1]},{other[2]})"
            )
        text.append("\n")
    return text


class TrainingProgress(Observer):
    """The progress of a stage of training, for a person."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.bar: _Bar | None = None
        self.total = 0
        self.first = 0
        self.began = 0.0
        self.spoke = 0.0

    def start(self, images_seen: int, num_images: int) -> None:
        """Show the bar."""
        self.total, self.first = num_images, images_seen
        self.began = self.spoke = time.monotonic()
        if images_seen:
            console.print(f"{self.stage}: goes on after {images_seen:,} pictures")
        if sys.stderr.isatty():
            self.bar = _bar("pictures")
            self.bar.start()
            self.task = self.bar.add_task(self.stage, total=num_images, completed=images_seen)

    def advance(self, images_seen: int) -> None:
        """Move the bar, or say a line now and then."""
        if self.bar is not None:
            self.bar.update(self.task, completed=images_seen)
            return
        now = time.monotonic()
        if now - self.spoke >= _LINE_EVERY or images_seen == self.total:
            self.spoke = now
            rate = (images_seen - self.first) / max(now - self.began, 1e-9)
            left = (self.total - images_seen) / max(rate, 1e-9)
            console.print(
                f"{self.stage}: {images_seen:,} of {self.total:,} pictures, "
                f"{rate:,.0f}/s, {left / 60:.1f} min left"
            )

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        """Print the numbers of a validation."""
        if kind == "validation":
            shown = ", ".join(f"{n} {values[n]:.4g}" for n in _SHOWN if n in values)
            console.print(f"{self.stage}: after {images_seen:,} pictures: {shown}")

    def message(self, text: str) -> None:
        """Print it."""
        console.print(f"{self.stage}: {text}")

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
