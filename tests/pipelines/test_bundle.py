from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from armchair.core.errors import BundleError, OutputError, UnknownNameError, UsageError
from armchair.pipelines import load
from armchair.pipelines.bundle import EVALUATION, MANIFEST, open_bundle, record_scores
from armchair.pipelines.bundle_search import find_bundle
from armchair.pipelines.dalle1 import DALLE1


def test_a_saved_model_draws_what_it_drew_but_for_rounding_to_half_precision(
    tiny_model: DALLE1, tiny_bundle: Path
) -> None:
    again = load(str(tiny_bundle), device="cpu")
    for name, tensor in tiny_model.transformer.state_dict().items():
        torch.testing.assert_close(again.transformer.state_dict()[name], tensor.half().float())
    assert again.sampling == tiny_model.sampling
    assert again.tokenizer.table.merges == tiny_model.tokenizer.table.merges


def test_a_loaded_model_is_ready_to_draw_and_not_to_train(tiny_bundle: Path) -> None:
    model = load(str(tiny_bundle), device="cpu")
    assert not model.transformer.training
    assert not any(p.requires_grad for p in model.autoencoder.parameters())


@pytest.mark.parametrize("name", ["transformer.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        open_bundle(tiny_bundle)


def test_an_altered_file_is_named(tiny_bundle: Path) -> None:
    path = tiny_bundle / "autoencoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        BundleError, match=r"autoencoder\.safetensors is not what the manifest says"
    ):
        open_bundle(tiny_bundle)


def test_a_foreign_file_is_refused(tiny_bundle: Path) -> None:
    (tiny_bundle / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match=r"notes.txt is no file of this bundle"):
        open_bundle(tiny_bundle)


def test_a_pickle_beside_the_weights_is_refused(tiny_bundle: Path) -> None:
    torch.save({}, tiny_bundle / "model.pt")
    with pytest.raises(BundleError, match="is a pickle"):
        open_bundle(tiny_bundle)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_in_place_of_safetensors_is_refused_unread(
    tiny_bundle: Path, protocol: int
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('unpickled')",)

    path = tiny_bundle / "transformer.safetensors"
    path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    with pytest.raises(BundleError, match="pickle under another name"):
        open_bundle(tiny_bundle)


def test_a_pickle_that_the_manifest_vouches_for_is_refused_too(tiny_bundle: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tiny_bundle / "transformer.safetensors")
    _vouch(tiny_bundle, "transformer.safetensors")
    with pytest.raises(BundleError, match="pickle under another name"):
        load(str(tiny_bundle), device="cpu")


def test_weights_of_another_model_do_not_load(tiny_bundle: Path) -> None:
    data = (tiny_bundle / "autoencoder.safetensors").read_bytes()
    (tiny_bundle / "transformer.safetensors").write_bytes(data)
    _vouch(tiny_bundle, "transformer.safetensors")
    with pytest.raises(BundleError, match="does not fit the model"):
        load(str(tiny_bundle), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not of an armchair bundle"),
        ({"format_version": 99}, "format_version"),
        ({"files": {"../outside": {"sha256": "", "bytes": 1}}}, "damaged"),
        ({"files": []}, "damaged"),
        ({"kind": "dalle9"}, "kind: got 'dalle9'"),
        ({"config": {"autoencoder": {"type": "Foreign"}}}, "Foreign"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    tiny_bundle: Path, change: dict[str, object], message: str
) -> None:
    path = tiny_bundle / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    if "files" in change:  # nothing else is in the way
        for file in tiny_bundle.iterdir():
            if file.name != MANIFEST:
                file.unlink()
    with pytest.raises(BundleError, match=message):
        load(str(tiny_bundle), device="cpu")


@pytest.mark.parametrize(
    ("part", "field"), [("autoencoder", "codebook_size"), ("transformer", "text_length")]
)
def test_parts_of_two_models_do_not_make_one(tiny_bundle: Path, part: str, field: str) -> None:
    path = tiny_bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["config"][part][field] *= 2
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="its files do not fit together: transformer"):
        load(str(tiny_bundle), device="cpu")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "[" * 100_000])
def test_a_damaged_manifest_is_an_error(tiny_bundle: Path, content: str) -> None:
    (tiny_bundle / MANIFEST).write_text(content)
    with pytest.raises(BundleError):
        open_bundle(tiny_bundle)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="model: got 'no-such-model'"):
        find_bundle("no-such-model")
    with pytest.raises(
        UnknownNameError, match=r"start_from: got 'no-such-model'(.|\n)*armchair models"
    ):
        find_bundle("no-such-model", field="start_from")


def test_scores_can_be_added(tiny_bundle: Path) -> None:
    assert open_bundle(tiny_bundle).evaluation is None
    bundle = open_bundle(tiny_bundle)
    record_scores(bundle, '{"seen": 1}', card="# new card")
    again = open_bundle(tiny_bundle)
    assert again.evaluation == {"seen": 1}
    assert (tiny_bundle / "README.md").read_text() == "# new card"


@pytest.mark.parametrize("writes", range(6))
def test_a_bundle_is_whole_wherever_recording_its_scores_stops(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    record_scores(open_bundle(tiny_bundle), '{"seen": 1}', card="# once\n")
    before, left = Path.replace, [None] * writes

    def replace(path: Path, target: Path) -> Path:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return before(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with contextlib.suppress(KeyboardInterrupt):
            record_scores(open_bundle(tiny_bundle), '{"seen": 2}', card="# twice\n")
    scores = [{"seen": 1}] * 2 + [None] * 3 + [{"seen": 2}]
    assert open_bundle(tiny_bundle).evaluation == scores[writes]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 kB: what the system says then is what it says of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_leaves_no_manifest(tiny_model: DALLE1, tiny_bundle: Path) -> None:
    full = os.strerror(errno.EFBIG)
    with full_disk(), pytest.raises(OutputError, match=rf"autoencoder\.safetensors.*{full}"):
        tiny_model.save(tiny_bundle, about={}, card="# tiny\n")
    assert not (tiny_bundle / MANIFEST).exists()
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        open_bundle(tiny_bundle)
    tiny_model.save(tiny_bundle, about={}, card="# tiny\n")  # there is room again
    assert open_bundle(tiny_bundle).manifest["about"] == {}


def test_a_bundle_takes_the_place_of_another_with_its_scores(
    tiny_model: DALLE1, tiny_bundle: Path
) -> None:
    fresh = {path.name for path in tiny_bundle.iterdir()}
    record_scores(open_bundle(tiny_bundle), '{"seen": 1}', card="# scored\n")
    assert {path.name for path in open_bundle(tiny_bundle).path.iterdir()} == fresh | {EVALUATION}
    tiny_model.save(tiny_bundle, about={}, card="# tiny\n")
    assert {path.name for path in tiny_bundle.iterdir()} == fresh
    again = open_bundle(tiny_bundle)
    assert again.evaluation is None
    assert again.card == "# tiny\n"


def test_what_a_killed_process_left_behind_is_removed(
    tiny_model: DALLE1, tiny_bundle: Path
) -> None:
    for name in ("transformer.safetensors", "tokenizer.json", MANIFEST):
        (tiny_bundle / f".{name}.a1b2_3c4").write_text("half")  # as `atomic_path` names it
    tiny_model.save(tiny_bundle, about={}, card="# tiny\n")
    assert open_bundle(tiny_bundle).manifest["about"] == {}


def test_a_repository_is_read_from_the_cache_of_the_hub(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its files are links there, and nothing goes over the network."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--owner--avocados"
    snapshot = repository / "snapshots" / commit
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for path in tiny_bundle.iterdir():
        path.rename(repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    bundle = open_bundle(find_bundle("owner/avocados"))
    assert bundle.name == "avocados"
    assert load("owner/avocados", device="cpu").image_size == 64
    with pytest.raises(BundleError, match="owner/pears could not be fetched"):
        find_bundle("owner/pears")


def test_a_repository_is_fetched_where_no_folder_can_be_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("armchair.pipelines.bundle_search._fetch", Path)
    monkeypatch.chdir(tmp_path)
    assert find_bundle("owner/name") == Path("owner/name")
    (tmp_path / "owner").mkdir()
    with pytest.raises(UsageError, match="expected a folder that is there"):
        find_bundle("owner/name")


def _vouch(folder: Path, name: str) -> None:
    """Put the checksum of a file as it now is into the manifest."""
    import hashlib

    manifest = json.loads((folder / MANIFEST).read_text())
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_fetched_bundle_is_named_after_its_repository(tiny_bundle: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--avocados" / "snapshots" / "0a1b2c3d"
    snapshot.parent.mkdir(parents=True)
    tiny_bundle.rename(snapshot)
    assert open_bundle(snapshot).name == "avocados"
