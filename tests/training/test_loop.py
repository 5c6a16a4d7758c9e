import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import Tensor

from armchair.core.errors import CheckpointError, ConfigError, OutputError, TrainingError
from armchair.core.files import sha256
from armchair.training import loop
from armchair.training.checkpoint import list_checkpoints, load_checkpoint
from armchair.training.loop import Interrupted, TrainingConfig
from armchair.training.objective import Batch, Loss, Objective
from armchair.training.optim import OptimizerConfig

OBJECTIVES: dict[str, Callable[[], Objective[Any]]] = {
    "plane": toys.FitPlane,
    "dropout": lambda: toys.FitPlane(dropout=0.5),
    "dvae": toys.fit_dvae,
    "vqvae": toys.fit_vqvae,
    "clip": toys.fit_clip,
    "unet": toys.fit_unet,
    "prior": toys.fit_prior,
}


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    torch.set_flush_denormal(False)
    assert handlers == {number: signal.getsignal(number) for number in handlers}


def signal_self(number: int = signal.SIGINT) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def last(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(list_checkpoints(folder)[-1]).tensors


def fingerprint(folder: Path) -> str:
    """Of model, average and optimizer at the end of a run."""
    return sha256(list_checkpoints(folder)[-1] / "state.safetensors")


def interrupted_at(
    images_seen: int, objective: Objective[Any], folder: Path, training: TrainingConfig
) -> toys.Recorder:
    recorder = toys.Recorder({images_seen: signal_self()})
    with pytest.raises(Interrupted):
        toys.go(objective, folder, training, recorder)
    return recorder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ten_updates_and_ten_are_twenty(tmp_path: Path, name: str) -> None:
    build, training = OBJECTIVES[name], toys.config(log_every=8)
    unbroken = toys.go(build(), tmp_path / "unbroken", training)
    if name in ("dvae", "vqvae"):
        restarted = unbroken.logged("train", "restarted")
        assert any(value for seen, value in restarted.items() if seen <= 80)
        # a VQ-VAE of these blots has all its codes in use by then
        assert name == "vqvae" or any(value for seen, value in restarted.items() if seen > 80)
    interrupted_at(80, build(), tmp_path / "broken", training)
    torch.rand(7)  # what else draws does not matter
    recorder = toys.go(build(), tmp_path / "broken", training)
    assert recorder.starts == [(80, 160)]
    assert {part.split("/")[0] for part in last(tmp_path / "broken")} == {
        "model",
        "average",
        "optimizer",
    }
    assert fingerprint(tmp_path / "broken") == fingerprint(tmp_path / "unbroken")
    for quantity in ("loss", "gradient_norm", "learning_rate"):
        values = unbroken.logged("train", quantity)
        assert {k: v for k, v in values.items() if k > 80} == recorder.logged("train", quantity)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        toys.go(toys.FitPlane(), tmp_path / str(seed), toys.config(seed=seed))
    assert fingerprint(tmp_path / "0") != fingerprint(tmp_path / "1")


def test_workers_change_nothing(tmp_path: Path) -> None:
    for num_workers in (0, 1):
        folder = tmp_path / str(num_workers)
        toys.go(toys.FitPlane(), folder, toys.config(num_workers=num_workers))
    assert fingerprint(tmp_path / "0") == fingerprint(tmp_path / "1")


@pytest.mark.parametrize("num_images", [160, 85])  # the last batch is 8, or 5 in parts of 2, 2, 1
def test_accumulated_parts_are_the_whole_batch(tmp_path: Path, num_images: int) -> None:
    """A rival left the flag unused; another summed where the mean was meant."""
    for parts in (1, 4):
        training = toys.config(accumulation=parts, num_images=num_images, log_every=8)
        recorder = toys.go(toys.FitPlane(noise=0), tmp_path / str(parts), training)
        losses = recorder.logged("train", "loss")
        (tmp_path / str(parts) / "loss").write_text(str(losses[num_images]))
    whole, accumulated = last(tmp_path / "1"), last(tmp_path / "4")
    for key, value in whole.items():
        torch.testing.assert_close(accumulated[key], value, rtol=1e-5, atol=1e-6)
    one, other = (float((tmp_path / part / "loss").read_text()) for part in "14")
    assert one == pytest.approx(other, rel=1e-4)


def test_parts_of_a_batch_draw_noise_of_their_own(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watching(toys.FitPlane):
        def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
            seen.append(torch.randn(4, generator=generator))
            return super().loss(batch, progress=progress, generator=generator)

    toys.go(Watching(), tmp_path, toys.config(accumulation=2, num_images=32))
    assert len(torch.stack(seen).unique()) == 8 * 4


class Spoiled(toys.FitPlane):
    """A loss, or a gradient, that is no number from the sixth update on."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.updates = 0

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        loss = super().loss(batch, progress=progress, generator=generator)
        self.updates += 1
        if self.updates <= 5:
            return loss
        weight = next(self.model.parameters()).sum()
        extra = weight * math.nan if self.what == "loss" else (weight - weight).sqrt()
        return Loss(loss.total + extra, loss.metrics)


@pytest.mark.parametrize("what", ["loss", "gradient_norm"])
def test_what_is_not_finite_stops_the_run(tmp_path: Path, what: str) -> None:
    recorder = toys.Recorder()
    training = toys.config(checkpoint_every=16)
    with pytest.raises(TrainingError, match=rf"{what} at update 5 \(40 pictures seen\): got nan"):
        toys.go(Spoiled(what), tmp_path, training, recorder)
    assert recorder.stops == 1
    saved = list_checkpoints(tmp_path)
    assert [int(path.name) for path in saved] == [16, 32]
    assert all(tensor.isfinite().all() for tensor in load_checkpoint(saved[-1]).tensors.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_end_saves_and_says_where(tmp_path: Path, number: int) -> None:
    recorder = toys.Recorder({24: signal_self(number)})
    with pytest.raises(Interrupted, match="stopped after 24 of 160 pictures; saved") as caught:
        toys.go(toys.FitPlane(), tmp_path, None, recorder)
    assert str(tmp_path / "000000000024") in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert caught.value.exit_code == 130
    assert recorder.stops == 1
    assert recorder.advanced == [8, 16, 24]


def test_a_second_request_ends_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        signal_self()()
        signal_self()()

    with pytest.raises(KeyboardInterrupt):
        toys.go(toys.FitPlane(), tmp_path, None, toys.Recorder({24: twice}))
    assert list_checkpoints(tmp_path) == []


def test_a_request_at_the_very_end_is_too_late(tmp_path: Path) -> None:
    toys.go(toys.FitPlane(), tmp_path, None, toys.Recorder({160: signal_self()}))
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [160]


def test_a_checkpoint_that_is_due_anyway_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def counting(folder: Path, images_seen: int, *rest: Any, **options: Any) -> Path:
        saved.append(images_seen)
        return real(folder, images_seen, *rest, **options)

    real = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", counting)
    interrupted_at(48, toys.FitPlane(), tmp_path, toys.config(checkpoint_every=24))
    assert saved == [24, 48]


def test_a_request_to_the_whole_group_of_processes_saves_too(tmp_path: Path) -> None:
    """Ctrl-C, and what stops containers and jobs, reach the workers as well."""

    def everyone() -> None:
        workers = [worker.pid for worker in multiprocessing.active_children()]
        assert workers
        for process in (*workers, os.getpid()):
            assert process is not None
            os.kill(process, signal.SIGTERM)

    training = toys.config(num_workers=1)
    with pytest.raises(Interrupted):
        toys.go(toys.FitPlane(), tmp_path / "broken", training, toys.Recorder({80: everyone}))
    toys.go(toys.FitPlane(), tmp_path / "broken", training)
    toys.go(toys.FitPlane(), tmp_path / "unbroken", training)
    assert fingerprint(tmp_path / "broken") == fingerprint(tmp_path / "unbroken")


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    thread = threading.Thread(target=toys.go, args=(toys.FitPlane(), tmp_path))
    thread.start()
    thread.join()
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [160]


def test_the_model_is_left_with_its_average(tmp_path: Path) -> None:
    objective = toys.FitPlane()
    toys.go(objective, tmp_path)
    state = last(tmp_path)
    for name, tensor in objective.model.state_dict().items():
        assert torch.equal(tensor, state[f"average/{name}"])
        assert not torch.equal(tensor, state[f"model/{name}"])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    toys.go(toys.FitPlane(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    objective = toys.FitPlane()
    recorder = toys.go(objective, tmp_path)
    assert recorder.advanced == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    weight = objective.model.state_dict()["0.weight"]
    assert torch.equal(weight, last(tmp_path)["average/0.weight"])


def test_a_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    toys.go(toys.FitPlane(), tmp_path)
    with pytest.raises(CheckpointError, match="another configuration"):
        loop.train(
            toys.FitPlane(),
            toys.Points(),
            toys.config(),
            tmp_path,
            identity={"config": {"name": "other"}},
            observer=toys.Recorder(),
        )


def test_a_damaged_checkpoint_costs_only_its_updates(tmp_path: Path) -> None:
    training = toys.config(checkpoint_every=32)
    toys.go(toys.FitPlane(), tmp_path / "unbroken", training)
    interrupted_at(104, toys.FitPlane(), tmp_path / "broken", training)
    (tmp_path / "broken" / "000000000104" / "state.safetensors").write_bytes(b"")
    recorder = toys.go(toys.FitPlane(), tmp_path / "broken", training)
    assert recorder.starts == [(96, 160)]
    assert len(recorder.messages) == 1
    assert "000000000104" in recorder.messages[0]
    assert fingerprint(tmp_path / "broken") == fingerprint(tmp_path / "unbroken")


def test_watching_changes_nothing(tmp_path: Path) -> None:
    toys.go(toys.fit_dvae(), tmp_path / "alone")
    watched = toys.config(log_every=8, validate_every=8, checkpoint_every=8)
    toys.go(toys.fit_dvae(), tmp_path / "watched", watched)
    assert fingerprint(tmp_path / "alone") == fingerprint(tmp_path / "watched")


def test_validation_sees_the_average(tmp_path: Path) -> None:
    recorder = toys.go(toys.FitPlane(), tmp_path, toys.config(validate_every=40))
    seen = recorder.logged("validation", "first_weight")
    assert list(seen) == recorder.previews == [40, 80, 120, 160]
    assert seen[160] == float(last(tmp_path)["average/0.weight"][0, 0])
    assert seen[160] != float(last(tmp_path)["model/0.weight"][0, 0])


def test_metrics_are_means_since_the_last_line(tmp_path: Path) -> None:
    training = toys.config(log_every=20)  # due at 24, 40, 64, 80, …: at the update that passes it
    recorder = toys.go(toys.FitPlane(), tmp_path, training)
    progress = recorder.logged("train", "progress")
    assert list(progress) == [24, 40, 64, 80, 104, 120, 144, 160]
    assert progress[24] == pytest.approx((0 + 8 + 16) / 3 / 160)
    assert progress[40] == pytest.approx((24 + 32) / 2 / 160)
    rates = recorder.logged("train", "learning_rate")
    rate = training.optimizer.learning_rate
    assert rates[40] == pytest.approx((rate(24 / 160) + rate(32 / 160)) / 2)
    assert all(value > 0 for value in recorder.logged("train", "images_per_second").values())


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    """The first step of AdamW moves by the rate, whatever the gradient; its moment tells."""
    rate = OptimizerConfig(learning_rate=toys.config().optimizer.learning_rate, clip_norm=1e-3)
    recorder = toys.go(
        toys.FitPlane(), tmp_path, toys.config(optimizer=rate, num_images=8, log_every=8)
    )
    assert recorder.logged("train", "gradient_norm")[8] > 1e-2  # as it was before
    moments = [t for name, t in last(tmp_path).items() if name.endswith("exp_avg")]
    norm = torch.cat([moment.flatten() for moment in moments]).norm() / (1 - rate.betas[0])
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_the_plane_is_found(tmp_path: Path) -> None:
    training = toys.config(num_images=3200, log_every=160)
    recorder = toys.go(toys.FitPlane(noise=0), tmp_path, training)
    losses = list(recorder.logged("train", "loss").values())
    assert losses[-1] < losses[0] / 20


@pytest.mark.parametrize("name", ["dvae", "unet", "prior"])
def test_bfloat16_trains(tmp_path: Path, name: str) -> None:
    recorder = toys.go(OBJECTIVES[name](), tmp_path, toys.config(precision="bf16", log_every=80))
    assert all(map(math.isfinite, recorder.logged("train", "loss").values()))
    assert all(tensor.dtype == torch.float32 for tensor in last(tmp_path).values())


def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, images_seen: int, *rest: Any, **options: Any) -> Path:
        if images_seen > 40:
            raise OutputError("cannot write")
        return real(folder, images_seen, *rest, **options)

    real, recorder = loop.save_checkpoint, toys.Recorder()
    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(OutputError):
        toys.go(toys.FitPlane(), tmp_path, toys.config(checkpoint_every=40), recorder)
    assert recorder.stops == 1
    monkeypatch.undo()
    assert toys.go(toys.FitPlane(), tmp_path).starts == [(40, 160)]


def test_a_checkpoint_says_what_made_it(tmp_path: Path) -> None:
    toys.go(toys.FitPlane(), tmp_path)
    about = load_checkpoint(list_checkpoints(tmp_path)[-1]).about
    assert toys.IDENTITY.items() <= about.items()
    assert (about["images_seen"], about["updates"]) == (160, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_images": -1}, "num_images: got -1"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"accumulation": 3}, "accumulation: got 3, expected a divisor of batch_size = 8"),
        ({"keep_checkpoints": 0}, "keep_checkpoints: got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every: got 0"),
        ({"num_workers": -1}, "num_workers: got -1"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toys.config(**change)
