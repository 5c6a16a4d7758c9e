from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from armchair.core.images import to_tensor
from armchair.core.random import numpy_generator
from armchair.data.code_store import CodeStore, write_codes
from armchair.data.embedding_store import EmbeddingStore, write_embeddings
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.data.shards import Encoded
from armchair.data.sources import DataConfig
from armchair.data.transforms import augment_for_autoencoder
from armchair.text.tokenizer import Tokenizer, TokenizerConfig
from armchair.training.examples import (
    CaptionedCodes,
    CaptionedImages,
    EmbeddedCaptions,
    PictureExamples,
    Views,
    Wordings,
    view,
)

SCENES = Scenes(ScenesConfig(num_pictures=3, size=32))


def test_pictures_as_they_are() -> None:
    examples = PictureExamples(SCENES, size=32, seed=0, augment=False)
    assert len(examples) == 3
    image = examples.example(1, 7)["images"]
    assert torch.equal(image, to_tensor(SCENES.pixels(1)))
    assert torch.equal(image, examples.example(1, 8)["images"])


def test_crops_are_keyed_by_the_position_in_the_run() -> None:
    examples = PictureExamples(SCENES, size=16, seed=5, augment=True)
    images = [examples.example(1, position)["images"] for position in (7, 7, 8)]
    assert images[0].shape == (3, 16, 16)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    cropped = augment_for_autoencoder(SCENES.pixels(1), 16, numpy_generator("augment", 5, 7))
    assert torch.equal(images[0], to_tensor(cropped))


WORDINGS = ["a red armchair", "an armchair that is red", "red armchair"]


def encode(indices: range) -> Encoded:
    return np.stack([np.full((2, 2), index) for index in indices]), [WORDINGS for _ in indices]


def captioned_codes(
    folder: Path, *, dropout: float = 0.0, length: int = 24, **options: Any
) -> CaptionedCodes:
    write_codes(folder, 3, encode, about={})
    config = TokenizerConfig(vocab_size=280, context_length=length, dropout=dropout)
    tokenizer = Tokenizer.train(iter(WORDINGS * 5), config)
    return CaptionedCodes(CodeStore(folder), Wordings(tokenizer, seed=0, **options))


def test_codes_with_a_wording_drawn_for_each_position(tmp_path: Path) -> None:
    examples = captioned_codes(tmp_path)
    assert len(examples) == 3
    texts = [examples.example(2, position)["text"] for position in range(40)]
    assert len({tuple(text.tolist()) for text in texts}) == len(WORDINGS)
    again = examples.example(2, 11)
    assert torch.equal(again["text"], texts[11])
    assert again["codes"].tolist() == [[2, 2], [2, 2]]
    assert again["codes"].dtype == again["text"].dtype == torch.int64


@pytest.mark.parametrize(
    ("share", "among"), [(0.01, 1), (1 / 3, 1), (0.4, 2), (2 / 3, 2), (1.0, 3)]
)
def test_the_first_wordings_first(tmp_path: Path, share: float, among: int) -> None:
    examples = captioned_codes(tmp_path, share=lambda position: share if position < 30 else 1.0)
    decode = examples.wordings.tokenizer.decode

    def drawn(positions: range) -> set[str]:
        tokens = [examples.example(0, position)["text"] for position in positions]
        return {decode(text.numpy()) for text in tokens}

    assert drawn(range(30)) == set(WORDINGS[:among])
    assert drawn(range(30, 60)) == set(WORDINGS)


def test_dropped_merges_are_keyed_by_position(tmp_path: Path) -> None:
    examples = captioned_codes(tmp_path, dropout=0.5)
    texts = {tuple(examples.example(0, position)["text"].tolist()) for position in range(40)}
    assert len(texts) > len(WORDINGS)
    assert torch.equal(examples.example(0, 3)["text"], examples.example(0, 3)["text"])


def test_long_captions_are_cut(tmp_path: Path) -> None:
    """77 tokens and more crashed a rival."""
    assert captioned_codes(tmp_path, length=3).example(0, 0)["text"].shape == (3,)


def scene_wordings(dropout: float = 0.0) -> Wordings:
    config = TokenizerConfig(vocab_size=260, dropout=dropout)
    return Wordings(Tokenizer.train(SCENES.captions(1), config), seed=0)


def test_captioned_images_draw_a_wording_and_a_crop_for_each_position() -> None:
    def examples(*, dropout: float = 0.0, **changes: Any) -> CaptionedImages:
        settings = {"size": 32, "seed": 0, "augment": False, **changes}
        return CaptionedImages(SCENES, scene_wordings(dropout), **settings)

    plain = examples()
    assert len(plain) == 3
    decode = plain.wordings.tokenizer.decode
    seen = {decode(plain.example(1, p)["text"].numpy()) for p in range(60)}
    assert seen == {caption.lower() for caption in SCENES.captions(1)}
    assert torch.equal(plain.example(1, 0)["images"], to_tensor(SCENES.pixels(1)))
    for changes, key in (({"dropout": 0.5}, "text"), ({"size": 16, "augment": True}, "images")):
        drawn = [examples(**changes).example(1, position)[key] for position in (7, 7, 8, 9, 10)]
        assert torch.equal(drawn[0], drawn[1])
        assert any(not torch.equal(drawn[0], other) for other in drawn[2:])


def test_near_misses_come_with_pictures_that_have_them() -> None:
    def examples(pictures: Any) -> CaptionedImages:
        wordings = scene_wordings()
        settings = {"size": 32, "seed": 0, "augment": False, "near_misses": 4}
        return CaptionedImages(pictures, wordings, **settings)

    with_them = examples(SCENES).example(1, 5)
    assert with_them["near_misses"].shape == (4, len(with_them["text"]))
    assert not (with_them["near_misses"] == with_them["text"]).all(dim=1).any()
    again, later = examples(SCENES).example(1, 5), examples(SCENES).example(1, 6)
    assert torch.equal(again["near_misses"], with_them["near_misses"])
    assert not torch.equal(later["near_misses"], with_them["near_misses"])
    assert set(examples(Strange()).example(1, 5)) == {"text", "images"}


class Strange:
    """Pictures of which nothing is known but their captions."""

    def __len__(self) -> int:
        return len(SCENES)

    def pixels(self, index: int) -> Any:
        return SCENES.pixels(index)

    def captions(self, index: int) -> list[str]:
        return SCENES.captions(index)

    def fingerprint(self) -> str:
        return "strange"


def embedding_store(folder: Path) -> EmbeddingStore:
    """Six views of three pictures with three wordings each, embedded as numbers that tell them."""
    images = np.arange(6.0)[:, None].repeat(2, axis=1)
    texts = np.arange(18.0)[:, None].repeat(2, axis=1)
    write_embeddings(folder, 6, lambda _: (images, texts, [WORDINGS] * 6), about={})
    return EmbeddingStore(folder)


def wording_tokenizer() -> Tokenizer:
    config = TokenizerConfig(vocab_size=280, context_length=24, dropout=0.0)
    return Tokenizer.train(iter(WORDINGS * 5), config)


def test_captions_come_with_their_own_embedding(tmp_path: Path) -> None:
    store, tokenizer = embedding_store(tmp_path), wording_tokenizer()
    examples = EmbeddedCaptions(store, Wordings(tokenizer, seed=0))
    assert len(examples) == 6
    drawn = set()
    for position in range(40):
        example = examples.example(4, position)
        which = WORDINGS.index(tokenizer.decode(example["text"].numpy()))
        assert example["text_embedding"].tolist() == [4 * 3 + which] * 2
        assert example["image_embedding"].tolist() == [4, 4]
        drawn.add(which)
    assert drawn == {0, 1, 2}


def test_views_come_with_what_a_model_is_told(tmp_path: Path) -> None:
    data = DataConfig(views=2)
    bare = Views(SCENES, data, size=16)
    assert len(bare) == 6
    for number in (1, 4):  # the centre of picture 1, and another view of it
        example = bare.example(number, 0)
        assert set(example) == {"images"}
        assert torch.equal(example["images"], to_tensor(view(SCENES, number, size=16, seed=0)))
    wordings = scene_wordings()
    told = Views(SCENES, data, size=16, wordings=wordings, embeddings=embedding_store(tmp_path))
    seen = {wordings.tokenizer.decode(told.example(4, p)["text"].numpy()) for p in range(60)}
    assert seen == {caption.lower() for caption in SCENES.captions(1)}
    assert told.example(4, 0)["embedding"].tolist() == [4, 4]
    assert torch.equal(told.example(4, 7)["images"], bare.example(4, 0)["images"])


def test_crops_of_views_lie_anywhere_and_are_drawn_anew() -> None:
    whole = Views(SCENES, DataConfig(), size=16).example(1, 0)["images"]
    cropped = Views(SCENES, DataConfig(), size=16, crop_size=14)
    places = set()
    for position in range(80):
        crop = cropped.example(1, position)["images"]
        found = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(crop, whole[:, top : top + 14, left : left + 14])
        ]
        places.update(found[:1])
        assert found
    assert len(places) > 4
    assert torch.equal(cropped.example(1, 7)["images"], cropped.example(1, 7)["images"])
