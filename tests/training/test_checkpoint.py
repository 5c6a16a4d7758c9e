import errno
import json
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from armchair.core import tensors as tensor_files
from armchair.core.errors import CheckpointError, OutputError
from armchair.core.schedules import Schedule
from armchair.training import checkpoint as module
from armchair.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from armchair.training.optim import OptimizerConfig, build_optimizers


def state(images_seen: int) -> Checkpoint:
    weights = torch.full((50, 50), float(images_seen))
    tensors = {"model/weight": weights, "optimizer/weight/step": torch.tensor(3.0)}
    return Checkpoint(tensors, {"images_seen": images_seen, "config": {"name": "süß"}})


def save(folder: Path, *images_seen: int, keep: int = 2) -> None:
    for number in images_seen:
        save_checkpoint(folder, number, state(number), keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name.lstrip("0") for path in folder.iterdir())


def refuse(text: str) -> None:
    raise AssertionError(text)


def newest(folder: Path) -> int:
    found = load_newest(folder, refuse)
    assert found is not None
    return found.about["images_seen"]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "new", 64, state(64), keep=1)
    assert path == tmp_path / "new" / "000000000064"
    loaded = load_checkpoint(path)
    assert loaded.tensors.keys() == state(64).tensors.keys()
    assert all(torch.equal(loaded.tensors[k], v) for k, v in state(64).tensors.items())
    assert state(64).about.items() <= loaded.about.items()


def test_tensors_of_any_layout_are_saved(tmp_path: Path) -> None:
    tensors = {
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 2).T,
        "whole": torch.arange(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    save_checkpoint(tmp_path, 1, Checkpoint(tensors, {}), keep=1)
    loaded = load_checkpoint(tmp_path / "000000000001").tensors
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 8, 16, 24, 1000, keep=3)
    assert names(tmp_path) == ["1000", "16", "24"]
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [16, 24, 1000]
    assert newest(tmp_path) == 1000


def test_whoever_may_read_the_folder_may_read_its_checkpoints(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save(tmp_path, 8)
    finally:
        os.umask(before)
    path = tmp_path / "000000000008"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o644}


def test_no_folder_holds_no_checkpoint(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "nowhere") == []
    assert load_newest(tmp_path / "nowhere", refuse) is None


def cut(path: Path) -> None:
    data = (path / "state.safetensors").read_bytes()
    (path / "state.safetensors").write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "state.safetensors").write_bytes(data)


def garble(path: Path) -> None:
    (path / "manifest.json").write_bytes(b'{"format": 1, "sha\xff')


def age(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 0}))


def alter(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    changed = {**manifest, "config": {"name": "sauer"}}
    (path / "manifest.json").write_text(json.dumps(changed))


def miscount(path: Path) -> None:
    """In the format without a checksum of the manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["manifest_sha256"]
    changed = {**manifest, "format": 1, "images_seen": 12}
    (path / "manifest.json").write_text(json.dumps(changed))


def empty(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


def forget(path: Path) -> None:
    (path / "manifest.json").unlink()


def lose(path: Path) -> None:
    (path / "state.safetensors").unlink()


DAMAGES = [cut, flip, garble, age, alter, miscount, empty, forget, lose]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_refused_by_name_and_the_one_before_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 8, 16)
    damage(tmp_path / "000000000016")
    with pytest.raises(CheckpointError, match="000000000016"):
        load_checkpoint(tmp_path / "000000000016")
    warnings: list[str] = []
    found = load_newest(tmp_path, warnings.append)
    assert found is not None
    assert found.about["images_seen"] == 8
    assert len(warnings) == 1
    assert "000000000016" in warnings[0]


def test_when_all_are_damaged_the_run_does_not_start_over(tmp_path: Path) -> None:
    save(tmp_path, 8, 16)
    cut(tmp_path / "000000000008")
    garble(tmp_path / "000000000016")
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        load_newest(tmp_path, warnings.append)
    assert len(warnings) == 2


def test_a_damaged_one_does_not_push_out_a_whole_one(tmp_path: Path) -> None:
    """A run that went back before a damaged checkpoint saves; what it saved must stay."""
    save(tmp_path, 8, 24)
    cut(tmp_path / "000000000024")
    save(tmp_path, 16, keep=1)
    found = load_newest(tmp_path, lambda text: None)
    assert found is not None
    assert found.about["images_seen"] == 16
    save(tmp_path, 24, keep=1)
    assert names(tmp_path) == ["24"]
    assert newest(tmp_path) == 24


def test_leftovers_of_a_killed_run_do_not_count_and_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 8)
    leftover = tmp_path / ".writing-abc"
    leftover.mkdir()
    (leftover / "state.safetensors").write_bytes(bytes(100))
    assert newest(tmp_path) == 8
    save(tmp_path, 16)
    assert names(tmp_path) == ["16", "8"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 kB: what the system says then is what it says of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_fills_keeps_the_old_ones(tmp_path: Path) -> None:
    small = Checkpoint({"weight": torch.ones(2)}, {"images_seen": 8})
    save_checkpoint(tmp_path, 8, small, keep=1)
    with pytest.raises(OutputError, match=f"000000000016.*{os.strerror(errno.EFBIG)}"):
        save_checkpoint(tmp_path, 16, state(16), keep=1)
    assert names(tmp_path) == ["8"]
    assert newest(tmp_path) == 8


def failing(number: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("call", ["save_tensors", "write_json", "sha256"])
def test_a_full_disk_keeps_the_old_ones_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(tmp_path, 8, keep=1)
    monkeypatch.setattr(module, call, failing(errno.ENOSPC))
    with pytest.raises(OutputError, match="the disk is full"):
        save(tmp_path, 16, keep=1)
    monkeypatch.undo()
    assert names(tmp_path) == ["8"]
    assert newest(tmp_path) == 8


def test_what_safetensors_makes_of_a_full_disk_has_the_hint_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        text = f"Error while serializing: I/O error: No space left (os error {errno.ENOSPC})"
        raise SafetensorError(text)

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(OutputError, match="free some space"):
        save(tmp_path, 16)
    assert names(tmp_path) == []


def build(kind: Literal["adamw", "muon"]) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 2)]
    model = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    model.register_parameter("scalar", nn.Parameter(torch.ones(())))  # is not used, so has no state
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = Schedule.of(1e-3)
    return model, build_optimizers(model, OptimizerConfig(learning_rate=rate, hidden_matrices=kind))


def steps(model: nn.Module, optimizers: list[torch.optim.Optimizer], count: int) -> None:
    for n in range(count):
        x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(n))
        for layer in cast(nn.ModuleList, model["layers"]):  # type: ignore[index]
            x = layer(x.movedim(1, -1) if isinstance(layer, nn.Linear) else x)
        x.square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_optimizers_go_on_where_they_were(tmp_path: Path, kind: Literal["adamw", "muon"]) -> None:
    model, optimizers = build(kind)
    assert len(optimizers) == (2 if kind == "muon" else 1)
    steps(model, optimizers, 3)
    tensors = {**model.state_dict(), **optimizer_tensors(model, optimizers)}
    save_checkpoint(tmp_path, 1, Checkpoint(tensors, {}), keep=1)
    loaded = load_checkpoint(tmp_path / "000000000001").tensors

    again, other_optimizers = build(kind)
    again.load_state_dict({name: loaded[name] for name in again.state_dict()})
    kept = {name: tensor for name, tensor in loaded.items() if "/" in name}
    of_muon = {"momentum_buffer"} if kind == "muon" else set[str]()
    assert {name.split("/")[1] for name in kept} == {"step", "exp_avg", "exp_avg_sq"} | of_muon
    load_optimizer_tensors(again, other_optimizers, kept)
    assert optimizer_tensors(again, other_optimizers).keys() == kept.keys()
    before = dict(zip(model.parameters(), again.parameters(), strict=True))
    for optimizer, other in zip(optimizers, other_optimizers, strict=True):
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                found = other.state[before[parameter]][key]
                assert torch.equal(found, value)
                assert found.stride() == value.stride()

    steps(model, optimizers, 3)
    steps(again, other_optimizers, 3)
    assert all(torch.equal(one, other) for one, other in before.items())
