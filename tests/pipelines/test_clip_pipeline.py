from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import armchair
from armchair.core.errors import BundleError, UsageError
from armchair.pipelines import load
from armchair.pipelines.bundle import MANIFEST, open_bundle
from armchair.pipelines.clip import CLIP
from armchair.pipelines.rerank import keep_best
from armchair.text.clip_tokenizer import CLIPTokenizer

PROMPT = "a kiwi clock"


def colours(*names: str, size: int = 64) -> list[Image.Image]:
    return [Image.new("RGB", (size, size), name) for name in names]


class Reds(CLIP):
    """Finds that the redder picture fits any text better."""

    def encode_texts(self, texts: Any, *, truncate: bool = False) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(texts), 2)

    def encode_pictures(self, pictures: Any) -> torch.Tensor:
        red = [np.asarray(picture)[..., 0].mean() / 255 for picture in pictures]
        return torch.tensor([[value, 0.0] for value in red], dtype=torch.float32)


@pytest.fixture
def reds(tiny_clip: CLIP) -> CLIP:
    return Reds(tiny_clip.tokenizer, tiny_clip.model)


# Asking


def test_scores_are_cosines_of_each_picture_with_each_text(tiny_clip: CLIP) -> None:
    pictures, texts = colours("red", "blue", "lime"), [PROMPT, "a mug"]
    scores = tiny_clip.scores(pictures, texts)
    assert scores.shape == (3, 2)
    assert (scores.abs() <= 1 + 1e-6).all()
    one = tiny_clip.scores(pictures[1:2], texts[1:])
    torch.testing.assert_close(one[0, 0], scores[1, 1], atol=1e-6, rtol=0)


def test_pictures_may_have_any_mode_and_size(tiny_clip: CLIP) -> None:
    size = tiny_clip.model.config.image_size
    grey = Image.new("L", (size, size), 90)
    as_rgb = tiny_clip.encode_pictures([grey.convert("RGB")])
    for picture in (grey, grey.convert("LA"), grey.convert("P")):
        torch.testing.assert_close(tiny_clip.encode_pictures([picture]), as_rgb)
    wide = Image.new("RGB", (3 * size, size), "red")
    wide.paste((90, 90, 90), (size, 0, 2 * size, size))
    torch.testing.assert_close(tiny_clip.encode_pictures([wide]), as_rgb)  # the centre alone
    clear = Image.new("RGBA", (size, size), (255, 0, 0, 0))
    white = tiny_clip.encode_pictures(colours("white", size=size))
    torch.testing.assert_close(tiny_clip.encode_pictures([clear]), white)


def test_classes_have_probabilities_and_templates_are_averaged(tiny_clip: CLIP) -> None:
    pictures, labels = colours("red", "blue"), ["mug", "clock", "boot"]
    shares = tiny_clip.classify(pictures, labels)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    by_hand = (tiny_clip.model.scale * tiny_clip.scores(pictures, labels)).softmax(dim=1)
    torch.testing.assert_close(shares, by_hand)
    templates = ["a {}", "a picture of a {}"]
    averaged = tiny_clip.classify(pictures, labels, templates=templates)
    each = [tiny_clip.encode_texts([t.replace("{}", label) for t in templates]) for label in labels]
    means = torch.stack([e.mean(dim=0) / e.mean(dim=0).norm() for e in each])
    logits = tiny_clip.model.scale * tiny_clip.encode_pictures(pictures) @ means.mT
    torch.testing.assert_close(averaged, logits.softmax(dim=1))


def test_recall_counts_who_finds_its_own(reds: CLIP) -> None:
    recalls = reds.recalls(colours("red", "black"), ["red", "black"])
    assert recalls == {
        "caption_recall_1": 0.0,  # every text fits alike, and a tie finds nothing
        "caption_recall_5": 1.0,
        "picture_recall_1": 0.5,
        "picture_recall_5": 1.0,
    }


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda clip: clip.scores([], [PROMPT]), "pictures"),
        (lambda clip: clip.scores(colours("red"), []), "texts"),
        (lambda clip: clip.scores(colours("red"), [""]), "caption"),
        (lambda clip: clip.scores(colours("red"), ["kiwi " * 90]), "tokens of the caption"),
        (lambda clip: clip.classify(colours("red"), []), "texts"),
        (lambda clip: clip.classify(colours("red"), ["mug"], templates=["a mug"]), "template"),
        (lambda clip: clip.recalls(colours("red"), ["a", "b"]), "captions: got 2, expected 1"),
    ],
)
def test_bad_questions_are_refused_by_name(tiny_clip: CLIP, ask: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(tiny_clip)


# Keeping the best


def test_the_best_of_each_prompt_are_kept_best_first(reds: CLIP) -> None:
    shades = [30, 200, 90, 10, 5, 250]
    pictures = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in shades]
    kept = list(keep_best(iter(pictures), ["a", "b"], reds, candidates=3, count=2))
    assert [picture.getpixel((0, 0))[0] for picture in kept] == [200, 90, 250, 10]
    assert kept[0].info["clip_score"] == f"{200 / 255:.4f}"


def test_a_prompts_best_come_before_the_next_prompt_is_drawn(reds: CLIP) -> None:
    drawn = []

    def draw() -> Any:
        for index in range(4):
            drawn.append(index)
            yield Image.new("RGB", (8, 8), (index, 0, 0))

    kept = keep_best(draw(), ["a", "b"], reds, candidates=2, count=1)
    assert drawn == []
    next(kept)
    assert drawn == [0, 1]


@pytest.mark.parametrize(("candidates", "count"), [(3, 4), (0, 0), (2, 0)])
def test_no_more_can_be_kept_than_are_drawn(reds: CLIP, candidates: int, count: int) -> None:
    with pytest.raises(UsageError, match=r"candidates|count"):
        keep_best([], ["a"], reds, candidates=candidates, count=count)


# The bundle


def test_a_saved_clip_scores_as_before(tiny_clip: CLIP, clip_bundle: Path) -> None:
    again = armchair.load(str(clip_bundle), device="cpu")
    assert isinstance(again, CLIP)
    assert open_bundle(clip_bundle).kind == "clip"
    pictures = colours("red", "blue")
    before = tiny_clip.scores(pictures, [PROMPT])
    torch.testing.assert_close(again.scores(pictures, [PROMPT]), before, atol=2e-2, rtol=0)
    assert not any(parameter.requires_grad for parameter in again.model.parameters())
    assert not again.model.training


def test_a_model_of_another_kind_is_refused(clip_bundle: Path, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="got 'clip', expected dalle1"):
        load(str(clip_bundle), kinds=("dalle1",))
    with pytest.raises(BundleError, match="kind"):
        CLIP.load(open_bundle(tiny_bundle), torch.device("cpu"))


def test_a_vocabulary_of_another_size_is_refused(clip_bundle: Path) -> None:
    path = clip_bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["config"]["model"]["text_length"] = 95
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="tokens and positions"):
        load(str(clip_bundle), device="cpu")


def openai_files(folder: Path) -> tuple[Path, Path]:
    """A tiny model under the published names, and its vocabulary."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (64, 3, 4, 4),
        "visual.class_embedding": (64,),
        "visual.positional_embedding": (5, 64),
        "visual.proj": (64, 8),
        "token_embedding.weight": (516, 64),
        "positional_embedding": (12, 64),
        "text_projection": (64, 8),
        "logit_scale": (),
    }
    norms = ["visual.ln_pre", "visual.ln_post", "ln_final"]
    for block in ("visual.transformer.resblocks.0", "transformer.resblocks.0"):
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, rows, columns in (
            ("attn.in_proj_", 192, 64),
            ("attn.out_proj.", 64, 64),
            ("mlp.c_fc.", 256, 64),
            ("mlp.c_proj.", 64, 256),
        ):
            shapes |= {f"{block}.{name}weight": (rows, columns), f"{block}.{name}bias": (rows,)}
    for norm in norms:
        shapes |= {f"{norm}.weight": (64,), f"{norm}.bias": (64,)}
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "clip.safetensors")
    (folder / "merges.txt").write_text("#version: 0.2\nm u\nmu g</w>\n")
    return folder / "clip.safetensors", folder / "merges.txt"


def test_openais_files_make_a_clip_and_a_bundle_of_it(tmp_path: Path) -> None:
    clip = CLIP.from_openai(*openai_files(tmp_path), device="cpu")
    assert clip.model.config.image_size == 8
    assert clip.tokenizer.encode_batch(["a mug"])[0, :5].tolist() == [514, 320, 513, 515, 0]
    before = clip.scores(colours("red", "blue"), ["a mug"])
    clip.save(tmp_path / "bundle", about={}, card="# tiny\n")
    again = load(str(tmp_path / "bundle"), device="cpu")
    assert isinstance(again.tokenizer, CLIPTokenizer)
    torch.testing.assert_close(
        again.scores(colours("red", "blue"), ["a mug"]), before, atol=2e-2, rtol=0
    )


def test_openais_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    weights, vocabulary = openai_files(tmp_path)
    vocabulary.write_text("#version: 0.2\nm u\n")
    with pytest.raises(BundleError, match="tokens and positions"):
        CLIP.from_openai(weights, vocabulary)
    for content in (None, b"\x80\x04"):
        if content is not None:
            weights.write_bytes(content)
        else:
            weights.unlink()
        with pytest.raises(BundleError, match="safetensors"):
            CLIP.from_openai(weights, vocabulary)
