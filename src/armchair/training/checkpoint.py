"""Training state on disk: whole or absent, checksummed, self-describing, and free of pickles.

A checkpoint is a folder that appears under its name only once it is complete:

    checkpoints/00051200/state.safetensors    model, average, optimizer: tensors only
    checkpoints/00051200/manifest.json        checksum, counters, config, version, commit, seed
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from armchair.core.errors import CheckpointError
from armchair.core.files import output_error, sha256, sync_folder, write_json
from armchair.core.tensors import save_tensors

FORMAT = 2
_WITHOUT_DIGEST = 1  # an older format, whose manifest nothing vouches for
_STATE = "state.safetensors"
_MANIFEST = "manifest.json"
_DIGEST = "manifest_sha256"
_UNFINISHED = ".writing-"
_AVERAGE = "average/"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        tensors: Named tensors.
        about: JSON data: images_seen, config, version, commit, seed, and counters.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def average(self) -> dict[str, Tensor]:
        """The state of the model whose parameters are averages: what samples and ships."""
        return {
            name.removeprefix(_AVERAGE): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(_AVERAGE)
        }


def as_average(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that hold a model's averaged state."""
    return {f"{_AVERAGE}{name}": tensor for name, tensor in state.items()}


def save_checkpoint(folder: Path, images_seen: int, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint under `folder`, then remove all but the newest `keep` up to it.

    One that claims to be further on was refused when the run went back before it: it neither counts
    among the newest nor is removed.

    Raises:
        OutputError: It could not be written; older checkpoints are as they were.
    """
    target = folder / f"{images_seen:012d}"
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary = folder / f"{_UNFINISHED}{target.name}"
        temporary.mkdir()
        about = {**checkpoint.about, "images_seen": images_seen}
        _write(temporary, Checkpoint(checkpoint.tensors, about))
        if target.exists():
            target.rename(temporary.with_name(f"{temporary.name}-replaced"))
        temporary.rename(target)
        temporary = None
        sync_folder(folder)
        for old in [path for path in list_checkpoints(folder) if path <= target][:-keep]:
            shutil.rmtree(old)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    _remove_leftovers(folder)
    return target


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    save_tensors(folder / _STATE, checkpoint.tensors)
    about = {"format": FORMAT, "sha256": sha256(folder / _STATE), **checkpoint.about}
    write_json(folder / _MANIFEST, {**about, _DIGEST: _digest(about)})


def _digest(manifest: dict[str, Any]) -> str:
    """The checksum of all of a manifest but itself."""
    rest = {name: value for name, value in manifest.items() if name != _DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first; unfinished ones do not count."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"\d{12}", path.name))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and check it against its manifest.

    Raises:
        CheckpointError: It is incomplete, altered, or of another format.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        formats = (FORMAT, _WITHOUT_DIGEST)
        if not isinstance(manifest, dict) or manifest.get("format") not in formats:
            raise CheckpointError(f"{path / _MANIFEST}", got=manifest, expected=f"format {FORMAT}")
        if manifest["format"] == FORMAT and manifest.get(_DIGEST) != _digest(manifest):
            raise CheckpointError(f"{path / _MANIFEST} was altered")
        if manifest.get("images_seen") != int(path.name):
            got, expected = manifest.get("images_seen"), f"{int(path.name)}, as its name says"
            raise CheckpointError(f"{path / _MANIFEST}: images_seen", got=got, expected=expected)
        found = sha256(path / _STATE)
        if found != manifest.get("sha256"):
            raise CheckpointError(
                str(path / _STATE), got=f"sha256 {found[:12]}…", expected="what its manifest says"
            )
        return Checkpoint(load_file(path / _STATE), manifest)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def load_newest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is refused by name.

    Args:
        folder: Where checkpoints are.
        warn: Told of each damaged checkpoint that was passed over.

    Returns:
        None where there is no checkpoint yet.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warn(f"refused a damaged checkpoint: {error}")
    if paths:
        raise CheckpointError(
            f"{folder}: every checkpoint is damaged",
            hint="remove this folder to start this stage anew",
        )
    return None


def optimizer_tensors(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The state of a model's optimizers as tensors named "parameter/state"."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    owners = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit("/", 1)
        parameter = parameters[name]
        kept = tensor.to(parameter.device)  # the count of steps too, as the fused AdamW wants it
        if tensor.shape == parameter.shape:  # the layout (channels last, say) decides rounding
            kept = torch.empty_like(parameter).copy_(kept)
        owners[parameter].state[parameter][key] = kept
