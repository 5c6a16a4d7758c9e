from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from armchair.core.errors import DataError
from armchair.data import shards
from armchair.data.embedding_store import Embedded, EmbeddingStore, write_embeddings

TOTAL = 10


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 4)


def captions(index: int) -> list[str]:
    """Pictures differ in how many they have."""
    return [f"picture {index}, wording {number}" for number in range(1 + index % 3)]


def embed(indices: range) -> Embedded:
    """Picture n is n everywhere; its captions are n + 0.25, n + 0.5, ..."""
    images = np.stack([np.full(3, float(index)) for index in indices])
    texts = [
        np.full(3, index + 0.25 * (1 + number))
        for index in indices
        for number in range(len(captions(index)))
    ]
    return images, np.stack(texts), [captions(index) for index in indices]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    done: list[int] = []
    write_embeddings(tmp_path, TOTAL, embed, about={"clip": "x"}, advance=done.append)
    store = EmbeddingStore(tmp_path)
    assert done == [4, 8, 10]
    assert len(store) == TOTAL
    assert store.about == {"clip": "x", "pictures": TOTAL}
    for index in range(TOTAL):
        assert store.image(index).tolist() == [index] * 3
        assert store.captions(index) == captions(index)
        expected = [[index + 0.25 * (1 + n)] * 3 for n in range(len(captions(index)))]
        assert store.texts(index).tolist() == expected


def test_embeddings_take_two_bytes_a_number(tmp_path: Path) -> None:
    write_embeddings(tmp_path, TOTAL, embed, about={})
    assert np.load(tmp_path / "00000.npy").dtype == np.float16
    store = EmbeddingStore(tmp_path)
    assert store.image(0).dtype == store.texts(0).dtype == np.float32


def test_an_interrupted_writer_goes_on(tmp_path: Path) -> None:
    def stops(indices: range) -> Embedded:
        if 5 in indices:
            raise KeyboardInterrupt
        return embed(indices)

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(tmp_path, TOTAL, stops, about={})
    with pytest.raises(DataError, match="cannot be read"):
        EmbeddingStore(tmp_path)
    asked: list[range] = []
    write_embeddings(tmp_path, TOTAL, lambda part: asked.append(part) or embed(part), about={})
    assert asked == [range(4, 8), range(8, 10)]
    assert EmbeddingStore(tmp_path).image(9).tolist() == [9] * 3


def test_embeddings_of_another_clip_are_refused(tmp_path: Path) -> None:
    write_embeddings(tmp_path, TOTAL, embed, about={"clip": "a"})
    with pytest.raises(DataError, match="made by another model"):
        write_embeddings(tmp_path, TOTAL, embed, about={"clip": "b"})


def test_pairs_are_of_the_first_pictures_and_captions(tmp_path: Path) -> None:
    write_embeddings(tmp_path, TOTAL, embed, about={})
    images, texts = EmbeddingStore(tmp_path).pairs(6)
    assert images[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert texts[:, 0].tolist() == [index + 0.25 for index in range(6)]
    assert len(EmbeddingStore(tmp_path).pairs(100)[0]) == TOTAL
