import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from armchair.core.errors import DataError, OutputError
from armchair.data import shards
from armchair.data.code_store import CodeStore, write_codes
from armchair.data.shards import Encoded

ABOUT = {"recipe": {"type": "DiscreteVAEConfig", "width": 8}, "data": {"seed": 0}}
TOTAL = 10

# Line ends of every kind but the line feed, which a picture's line of captions ends with.
ODD = "one\u2028two\u2029three\x85four\x0bfive\r\nsix\tsüß 椅子 🥑"


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 4)


class Encoder:
    """Encodes picture n as n everywhere; may be switched off at a picture."""

    def __init__(self, *, fail_at: int | None = None, first_code: int = 0) -> None:
        self.fail_at = fail_at
        self.first_code = first_code
        self.asked: list[range] = []

    def __call__(self, indices: range) -> Encoded:
        self.asked.append(indices)
        if self.fail_at in indices:
            raise KeyboardInterrupt
        codes = np.stack([np.full((2, 3), self.first_code + index) for index in indices])
        return codes, [[f"picture {index}", ODD] for index in indices]


def write(folder: Path, encode: Encoder, about: dict[str, Any] = ABOUT, total: int = TOTAL) -> None:
    write_codes(folder, total, encode, about=about)


def check(store: CodeStore, total: int = TOTAL) -> None:
    assert len(store) == total
    for index in range(total):
        codes = store.codes(index)
        assert codes.dtype == np.int64
        assert codes.tolist() == [[index] * 3] * 2
        assert store.captions(index) == [f"picture {index}", ODD]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    done: list[int] = []
    write_codes(tmp_path, TOTAL, Encoder(), about=ABOUT, advance=done.append)
    check(CodeStore(tmp_path))
    assert done == [4, 8, 10]


def test_a_whole_store_is_not_encoded_again(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    again, done = Encoder(), []
    write_codes(tmp_path, TOTAL, again, about=ABOUT, advance=done.append)
    assert again.asked == []
    assert done == [TOTAL]


def test_an_interrupted_writer_goes_on_after_the_last_whole_shard(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Encoder(fail_at=5))
    with pytest.raises(DataError, match="cannot be read"):
        CodeStore(tmp_path)
    rest = Encoder()
    write(tmp_path, rest)
    assert rest.asked == [range(4, 8), range(8, 10)]
    check(CodeStore(tmp_path))


def test_a_shard_without_its_captions_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, text: str) -> None:
        raise OutputError(f"cannot write {path}")

    monkeypatch.setattr(shards, "write_text", full_disk)
    with pytest.raises(OutputError):
        write(tmp_path, Encoder(first_code=77))  # leaves codes without captions
    monkeypatch.undo()
    monkeypatch.setattr(shards, "SHARD_SIZE", 4)
    assert (tmp_path / "00000.npy").exists()
    write(tmp_path, Encoder())
    check(CodeStore(tmp_path))


@pytest.mark.parametrize("name", ["00001.npy", "00001.jsonl"])
def test_an_altered_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, Encoder())
    data = bytearray((tmp_path / name).read_bytes())
    data[-3] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name} was altered") as caught:
        CodeStore(tmp_path)
    assert "encode anew" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    (tmp_path / "00001.npy").unlink()
    with pytest.raises(DataError, match=r"00001\.npy"):
        CodeStore(tmp_path)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"format": 1}', '{"format": 99}'])
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, manifest: str) -> None:
    write(tmp_path, Encoder())
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError):
        CodeStore(tmp_path)


def test_codes_of_another_autoencoder_are_refused(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    other = {**ABOUT, "recipe": {"type": "VQVAEConfig"}}
    with pytest.raises(DataError, match="made by another model or of another data"):
        write(tmp_path, Encoder(), other)
    write(tmp_path, Encoder())  # the refusal has changed nothing
    check(CodeStore(tmp_path))


def test_codes_of_other_weights_are_refused(tmp_path: Path) -> None:
    first, second = ({**ABOUT, "autoencoder": digest * 64} for digest in "ab")
    write(tmp_path, Encoder(), first)
    assert CodeStore(tmp_path).about == {**first, "pictures": TOTAL}
    with pytest.raises(DataError, match="made by another model or of another data"):
        write(tmp_path, Encoder(), second)


def test_a_note_that_names_fewer_things_is_taken_and_kept(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    note = (tmp_path / "about.json").read_bytes()
    write(tmp_path, Encoder(), {**ABOUT, "autoencoder": "a" * 64})
    assert (tmp_path / "about.json").read_bytes() == note
    check(CodeStore(tmp_path))


def test_another_number_of_pictures_is_another_data_set(tmp_path: Path) -> None:
    """A folder of pictures that has grown must not mix with the shards of before."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Encoder(fail_at=9), total=10)
    with pytest.raises(DataError, match="made by another model or of another data"):
        write(tmp_path, Encoder(), total=12)


@pytest.mark.parametrize("note", ['{"recipe": ', "[]", "3", '{"foreign": 1}'])
def test_a_note_that_makes_no_sense_is_refused(tmp_path: Path, note: str) -> None:
    write(tmp_path, Encoder())
    (tmp_path / "about.json").write_text(note)
    with pytest.raises(DataError, match="remove this folder"):
        write(tmp_path, Encoder())


@pytest.mark.parametrize("first_code", [0, 2**16 - 4])
def test_codes_take_two_bytes_where_they_fit(tmp_path: Path, first_code: int) -> None:
    write(tmp_path, Encoder(first_code=first_code), total=4)
    assert np.load(tmp_path / "00000.npy").dtype == "uint16"
    assert CodeStore(tmp_path).codes(3)[0, 0] == first_code + 3


def test_large_codebooks_take_four(tmp_path: Path) -> None:
    write(tmp_path, Encoder(first_code=2**16), total=1)
    assert np.load(tmp_path / "00000.npy").dtype == "int32"
    assert CodeStore(tmp_path).codes(0)[0, 0] == 2**16


def test_the_manifest_counts(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["pictures"] == TOTAL
    assert len(manifest["sha256"]) == 6
