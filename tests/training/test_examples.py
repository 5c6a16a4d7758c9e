from pathlib import Path
from typing import Any

import numpy as np
import torch

from armchair.core.images import to_tensor
from armchair.core.random import numpy_generator
from armchair.data.code_store import CodeStore, Encoded, write_codes
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.data.transforms import augment_for_autoencoder
from armchair.text.tokenizer import Tokenizer, TokenizerConfig
from armchair.training.examples import CaptionedCodes, CaptionedImages, PictureExamples

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


def captioned_codes(folder: Path, *, dropout: float = 0.0, length: int = 24) -> CaptionedCodes:
    write_codes(folder, 3, encode, about={})
    config = TokenizerConfig(vocab_size=280, context_length=length, dropout=0.0)
    tokenizer = Tokenizer.train(iter(WORDINGS * 5), config)
    return CaptionedCodes(CodeStore(folder), tokenizer, seed=0, dropout=dropout)


def test_codes_with_a_wording_drawn_for_each_position(tmp_path: Path) -> None:
    examples = captioned_codes(tmp_path)
    assert len(examples) == 3
    texts = [examples.example(2, position)["text"] for position in range(40)]
    assert len({tuple(text.tolist()) for text in texts}) == len(WORDINGS)
    again = examples.example(2, 11)
    assert torch.equal(again["text"], texts[11])
    assert again["codes"].tolist() == [[2, 2], [2, 2]]
    assert again["codes"].dtype == again["text"].dtype == torch.int64


def test_dropped_merges_are_keyed_by_position(tmp_path: Path) -> None:
    examples = captioned_codes(tmp_path, dropout=0.5)
    texts = {tuple(examples.example(0, position)["text"].tolist()) for position in range(40)}
    assert len(texts) > len(WORDINGS)
    assert torch.equal(examples.example(0, 3)["text"], examples.example(0, 3)["text"])


def test_long_captions_are_cut(tmp_path: Path) -> None:
    """77 tokens and more crashed a rival."""
    assert captioned_codes(tmp_path, length=3).example(0, 0)["text"].shape == (3,)


def test_captioned_images_draw_a_wording_and_a_crop_for_each_position() -> None:
    tokenizer = Tokenizer.train(SCENES.captions(1), TokenizerConfig(vocab_size=260))

    def examples(**changes: Any) -> CaptionedImages:
        settings = {"size": 32, "seed": 0, "dropout": 0.0, "augment": False, **changes}
        return CaptionedImages(SCENES, tokenizer, **settings)

    plain = examples()
    assert len(plain) == 3
    seen = {tokenizer.decode(plain.example(1, p)["text"].numpy()) for p in range(60)}
    assert seen == {caption.lower() for caption in SCENES.captions(1)}
    assert torch.equal(plain.example(1, 0)["images"], to_tensor(SCENES.pixels(1)))
    for changes, key in (({"dropout": 0.5}, "text"), ({"size": 16, "augment": True}, "images")):
        drawn = [examples(**changes).example(1, position)[key] for position in (7, 7, 8, 9, 10)]
        assert torch.equal(drawn[0], drawn[1])
        assert any(not torch.equal(drawn[0], other) for other in drawn[2:])
