"""Who watches a run: a file of metrics, a folder of previews, TensorBoard, Weights & Biases."""

from __future__ import annotations

import importlib
import json
import math
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from armchair.core.errors import UsageError
from armchair.core.files import atomic_path, output_error, write_text

Kind = Literal["train", "validation"]

_SERVICES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}  # modules by extra


class Observer:
    """Told what happens in a run; every method may be overridden and does nothing by itself."""

    def start(self, images_seen: int, num_images: int) -> None:
        """The run starts, or goes on, at `images_seen` of `num_images`."""

    def advance(self, images_seen: int) -> None:
        """An update has been made."""

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        """Numbers of the training batches since the last call, or of the validation data."""

    def preview(self, images_seen: int, picture: Image.Image) -> None:
        """What the model can do now."""

    def message(self, text: str) -> None:
        """Something a person should know."""

    def stop(self) -> None:
        """The run is over or interrupted."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = list(observers)

    def start(self, images_seen: int, num_images: int) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.start(images_seen, num_images)

    def advance(self, images_seen: int) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.advance(images_seen)

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.metrics(kind, images_seen, values)

    def preview(self, images_seen: int, picture: Image.Image) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.preview(images_seen, picture)

    def message(self, text: str) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.message(text)

    def stop(self) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.stop()


class MetricsFile(Observer):
    """metrics.jsonl: one JSON object a line, with "kind", "images_seen", and the numbers.

    A resumed run drops what an interrupted one wrote after its last checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, images_seen: int, num_images: int) -> None:
        """Keep the lines up to `images_seen`."""
        kept = [row for row in read_metrics(self.path) if row["images_seen"] <= images_seen]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        """Append a line."""
        shown = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            with self.path.open("a") as file:
                row = {"kind": kind, "images_seen": images_seen, **shown}
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise output_error(self.path, error) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a crash cut short is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


class PreviewFolder(Observer):
    """previews/000012800.png, named by the pictures seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def preview(self, images_seen: int, picture: Image.Image) -> None:
        """Write one PNG."""
        with atomic_path(self.folder / f"{images_seen:09d}.png") as path:
            picture.save(path, format="PNG")


class TensorBoard(Observer):
    """Event files for TensorBoard; needs the extra `tensorboard`.

    They are opened when the run starts. A resumed run hides what an interrupted one wrote after its
    last checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open = _service("tensorboard").SummaryWriter
        self.writer: Any = None

    def start(self, images_seen: int, num_images: int) -> None:
        """Open the files."""
        # TensorBoard drops this step as well; the checkpoint's own numbers are to stay.
        self.writer = self.open(str(self.folder), purge_step=images_seen + 1)

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, images_seen)

    def preview(self, images_seen: int, picture: Image.Image) -> None:
        """Write a picture."""
        self.writer.add_image("preview", np.asarray(picture), images_seen, dataformats="HWC")

    def stop(self) -> None:
        """Flush and close."""
        self.writer.close()


class WeightsAndBiases(Observer):
    """A run at wandb.ai or a local server; needs the extra `wandb`.

    It is opened when the run starts. Its id stays in the folder, so that a resumed run goes on
    there.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.wandb = _service("wandb")
        self.folder = folder
        self.config = config
        self.run: Any = None

    def start(self, images_seen: int, num_images: int) -> None:
        """Open the run, or go on with it."""
        note = self.folder / "wandb-id.txt"
        if not note.exists():
            write_text(note, uuid.uuid4().hex + "\n")
        self.run = self.wandb.init(
            project="armchair",
            dir=str(self.folder),
            config=self.config,
            id=note.read_text().strip(),
            resume="allow",
        )

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        """Log scalars."""
        named = {f"{kind}/{name}": value for name, value in values.items()}
        self.run.log({**named, "images_seen": images_seen})

    def preview(self, images_seen: int, picture: Image.Image) -> None:
        """Log a picture."""
        self.run.log({"preview": self.wandb.Image(picture), "images_seen": images_seen})

    def stop(self) -> None:
        """Close the run."""
        self.run.finish()


def check_services(names: Iterable[str]) -> None:
    """Make sure that services can be told, before anything is trained.

    Args:
        names: "tensorboard", "wandb", or both.

    Raises:
        UsageError: One is not installed.
    """
    for name in names:
        _service(name)


def _service(name: str) -> Any:
    try:
        return importlib.import_module(_SERVICES[name])
    except ImportError as error:
        hint = f"pip install 'armchair[{name}]'"
        raise UsageError(f"{name} is not installed", hint=hint) from error
