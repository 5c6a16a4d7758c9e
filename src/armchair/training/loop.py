"""The one training loop.

    train(objective, examples, config, folder, identity=..., observer=...)

It runs updates from where the newest checkpoint left off until `num_images` pictures have been
seen. Everything random is keyed by the seed and the pictures seen, so an interrupted run ends, bit
for bit, where an unbroken one does.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from armchair.core.device import Precision, autocast, prepare_for_training, resolve_precision
from armchair.core.errors import ArmchairError, CheckpointError, ConfigError, TrainingError
from armchair.core.random import fold, torch_generator
from armchair.data.loader import Examples, batches
from armchair.training.checkpoint import (
    Checkpoint,
    as_average,
    load_newest,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from armchair.training.objective import Batch, Objective
from armchair.training.observers import Observer
from armchair.training.optim import (
    IterateAverage,
    OptimizerConfig,
    build_optimizers,
)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and in what portions to train.

    Attributes:
        num_images: Pictures to see in all, counting repeats; 0 leaves a network that training
            starts from as it is.
        batch_size: Pictures in an update.
        optimizer: How parameters move.
        accumulation: Parts in which a batch passes through the model, to save memory.
        precision: Of matrix products; "auto" takes bfloat16 where the hardware has it.
        seed: Decides the initial parameters, the order of the data, and the noise.
        num_workers: Processes that prepare batches ahead of need.
        log_every: Pictures between two lines of training metrics.
        validate_every: Pictures between two validations, each with a preview.
        checkpoint_every: Pictures between two checkpoints.
        keep_checkpoints: How many of the newest checkpoints to keep.
    """

    num_images: int
    batch_size: int
    optimizer: OptimizerConfig
    accumulation: int = 1
    precision: Precision = "auto"
    seed: int = 0
    num_workers: int = 1
    log_every: int = 1600
    validate_every: int = 16_000
    checkpoint_every: int = 16_000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "accumulation",
            "log_every",
            "validate_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(name, got=getattr(self, name), expected="at least 1")
        for name in ("num_images", "num_workers"):
            if getattr(self, name) < 0:
                raise ConfigError(name, got=getattr(self, name), expected="at least 0")
        if self.batch_size % self.accumulation:
            raise ConfigError(
                "accumulation",
                got=self.accumulation,
                expected=f"a divisor of batch_size = {self.batch_size}",
            )


class Interrupted(ArmchairError):  # noqa: N818 - it is no error of anybody's
    """The run was asked to stop; it has saved its state and goes on when started again."""

    exit_code = 130


def train(
    objective: Objective,
    examples: Examples,
    config: TrainingConfig,
    folder: Path,
    *,
    identity: dict[str, Any],
    observer: Observer,
    completed: Callable[[Any], Any] = lambda config: config,
) -> None:
    """Train to the end; the model is left with its averaged parameters.

    Args:
        objective: The model and its loss.
        examples: What to train on.
        config: How long and in what portions.
        folder: Where checkpoints are written, and where a run is taken up again.
        identity: JSON data that goes into each checkpoint (config, version, commit, seed). A
            checkpoint of another "config" is refused, and one of another "fingerprint".
        observer: Told of progress.
        completed: Gives the "config" of an older checkpoint what it did not have then.

    Raises:
        TrainingError: The loss is not finite.
        Interrupted: Ctrl-C or a request to end; a checkpoint has been written.
        CheckpointError: The checkpoints in `folder` are of another run, or all damaged.
        OutputError: The disk is full or read-only.
    """
    prepare_for_training()
    run = _Run(objective, examples, config, folder, identity, observer)
    run.resume(completed)
    observer.start(run.images_seen, config.num_images)
    try:
        with _interruptions() as interrupted:
            run.go(interrupted)
    finally:
        observer.stop()
    objective.model.load_state_dict(run.average.state)


class _Run:
    """The state of a run, and one update of it."""

    def __init__(
        self,
        objective: Objective,
        examples: Examples,
        config: TrainingConfig,
        folder: Path,
        identity: dict[str, Any],
        observer: Observer,
    ) -> None:
        self.objective = objective
        self.model = objective.model
        self.examples = examples
        self.config = config
        self.folder = folder
        self.identity = identity
        self.observer = observer
        self.device = next(self.model.parameters()).device
        self.dtype = resolve_precision(config.precision, self.device)
        self.optimizers = build_optimizers(self.model, config.optimizer)
        self.average = IterateAverage(self.model, config.optimizer.average_decay)
        self.images_seen = 0
        self.updates = 0
        self.sums: dict[str, float] = defaultdict(float)
        self.summed = 0
        self.clock = time.monotonic()

    def go(self, interrupted: threading.Event) -> None:
        config = self.config
        if not config.num_images:
            self.save()
        self.model.train()
        stream = batches(
            self.examples,
            batch_size=config.batch_size,
            start=self.images_seen,
            stop=config.num_images,
            seed=config.seed,
            num_workers=config.num_workers,
        )
        for batch in stream:
            before = self.images_seen
            self.update({name: tensor.to(self.device) for name, tensor in batch.items()})
            after, done = self.images_seen, self.images_seen == config.num_images
            self.observer.advance(after)
            if done or before // config.log_every != after // config.log_every:
                self.log()
            if done or before // config.validate_every != after // config.validate_every:
                self.validate()
            saved = None
            if done or before // config.checkpoint_every != after // config.checkpoint_every:
                saved = self.save()
            if interrupted.is_set() and not done:
                path = saved or self.save()
                raise Interrupted(
                    f"stopped after {after:,} of {config.num_images:,} pictures; saved {path}",
                    hint="run the same command again to go on from there",
                )

    def update(self, batch: Batch) -> None:
        """One step of the optimizer on one batch."""
        config, size = self.config, len(next(iter(batch.values())))
        progress = self.images_seen / config.num_images
        learning_rate = config.optimizer.learning_rate(progress)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        part_size = -(-size // config.accumulation)
        for start in range(0, size, part_size):
            part = {name: tensor[start : start + part_size] for name, tensor in batch.items()}
            share = len(next(iter(part.values()))) / size
            generator = self.generator("noise", self.images_seen + start)
            with autocast(self.device, self.dtype), self.dropout(self.images_seen + start):
                loss = self.objective.loss(part, progress=progress, generator=generator)
            (loss.total * share).backward()
            self.count({"loss": loss.total, **loss.metrics}, share)
        clip_norm = config.optimizer.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), math.inf if clip_norm is None else clip_norm
        )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        after = self.objective.after_update(self.generator("after update", self.images_seen))
        self.count({"gradient_norm": norm, "learning_rate": learning_rate, **after}, 1.0)
        self.summed += 1
        self.images_seen += size
        self.updates += 1
        if self.updates % config.optimizer.average_every == 0:
            self.average.update(self.model)

    def generator(self, purpose: str, images_seen: int) -> torch.Generator:
        return torch_generator(purpose, self.config.seed, images_seen, device=self.device)

    @contextmanager
    def dropout(self, images_seen: int) -> Iterator[None]:
        """Key the global generators, from which dropout layers draw, to where the run is."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(fold("dropout", self.config.seed, images_seen))
            yield

    def count(self, values: dict[str, Any], share: float) -> None:
        for name, value in values.items():
            number = float(value.detach()) if isinstance(value, Tensor) else float(value)
            if name in ("loss", "gradient_norm") and not math.isfinite(number):
                raise TrainingError(
                    f"{name} at update {self.updates} ({self.images_seen:,} pictures seen)",
                    got=number,
                    expected="a finite number",
                    hint="lower the learning rate, or use --precision fp32, and remove "
                    f"{self.folder.parent} to begin this stage anew",
                )
            self.sums[name] += number * share

    def log(self) -> None:
        now = time.monotonic()
        values = {name: total / self.summed for name, total in self.sums.items()}
        seconds = max(now - self.clock, 1e-9)
        values["images_per_second"] = self.summed * self.config.batch_size / seconds
        self.observer.metrics("train", self.images_seen, values)
        self.sums.clear()
        self.summed, self.clock = 0, now

    @torch.no_grad()
    def validate(self) -> None:
        """Score and show the averaged parameters."""
        paused = time.monotonic()
        current = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.state)
        self.model.eval()
        with autocast(self.device, self.dtype):
            progress = self.images_seen / self.config.num_images
            scores = self.objective.validate(progress=progress)
            self.observer.metrics("validation", self.images_seen, scores)
            self.observer.preview(self.images_seen, self.objective.preview())
        self.model.train()
        self.model.load_state_dict(current)
        self.clock += time.monotonic() - paused

    def save(self) -> Path:
        tensors = {
            **{f"model/{name}": tensor for name, tensor in self.model.state_dict().items()},
            **as_average(self.average.state),
            **{
                f"optimizer/{name}": tensor
                for name, tensor in optimizer_tensors(self.model, self.optimizers).items()
            },
        }
        about = {
            "images_seen": self.images_seen,
            "updates": self.updates,
            "average_contributions": self.average.contributions,
            **self.identity,
        }
        checkpoint = Checkpoint(tensors, about)
        keep = self.config.keep_checkpoints
        return save_checkpoint(self.folder, self.images_seen, checkpoint, keep=keep)

    def resume(self, completed: Callable[[Any], Any]) -> None:
        checkpoint = load_newest(self.folder, self.observer.message)
        if checkpoint is None:
            return
        about = checkpoint.about
        if completed(about.get("config")) != self.identity.get("config"):
            raise CheckpointError(
                f"{self.folder} belongs to a run with another configuration",
                hint="choose another --out, start with the same options as before, or remove "
                f"{self.folder.parent} to begin this stage anew",
            )
        fingerprint = self.identity.get("fingerprint")
        if about.get("fingerprint", fingerprint) != fingerprint:
            raise CheckpointError(
                f"{self.folder} belongs to a run on other pictures or captions",
                hint="give it those that it began with, or choose another --out",
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in checkpoint.tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.average.load(parts["average"], about["average_contributions"])
        load_optimizer_tensors(self.model, self.optimizers, parts["optimizer"])
        self.images_seen, self.updates = about["images_seen"], about["updates"]


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """An event that Ctrl-C and a request to end set, once; a second Ctrl-C ends at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
