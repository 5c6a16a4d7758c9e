"""What holds for every recipe."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from armchair.cli.main import main
from armchair.models.clip import CLIPModel
from armchair.models.sequence.text_to_image import TextToImageTransformer
from armchair.pipelines.dalle1 import build_autoencoder
from armchair.recipes import RECIPES, build_recipe
from armchair.training.clip import CLIPRecipe
from armchair.training.dalle1 import DALLE1Recipe


def test_help_lists_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    listed = capsys.readouterr().out.partition("recipes:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == list(RECIPES)


def of_kind(kind: type) -> list[str]:
    return [name for name in RECIPES if isinstance(build_recipe(name), kind)]


@pytest.mark.parametrize("name", of_kind(DALLE1Recipe))
@torch.no_grad()
def test_the_models_of_a_recipe_fit_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    recipe = build_recipe(name)
    assert recipe.name == name
    size, grid = recipe.autoencoder.image_size, recipe.autoencoder.grid_size
    with torch.device("meta"):
        autoencoder = build_autoencoder(recipe.autoencoder).eval()
        transformer = TextToImageTransformer(recipe.transformer).eval()
        codes = autoencoder.encode(torch.empty(2, 3, size, size))
        text_logits, image_logits = transformer(transformer.null_text(2), codes.flatten(1))
        pictures = autoencoder.decode(codes)
    text = recipe.tokenizer
    assert codes.shape == (2, grid, grid)
    assert text_logits.shape == (2, text.context_length - 1, text.vocab_size + 1)
    assert image_logits.shape == (2, grid**2, recipe.autoencoder.codebook_size)
    assert pictures.shape == (2, 3, size, size)


@pytest.mark.parametrize("name", of_kind(CLIPRecipe))
@torch.no_grad()
def test_the_halves_of_a_clip_fit_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    recipe = build_recipe(name)
    assert recipe.name == name
    size, text = recipe.clip.image_size, recipe.tokenizer
    with torch.device("meta"):
        model = CLIPModel(recipe.clip).eval()
        images = model.encode_images(torch.empty(2, 3, size, size))
        texts = model.encode_texts(torch.zeros(2, text.context_length, dtype=torch.int64))
    assert images.shape == texts.shape == (2, recipe.clip.embedding_dim)


def test_the_size_that_clip_scenes_speaks_of() -> None:
    with torch.device("meta"):
        model = CLIPModel(build_recipe("clip-scenes").clip)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_789_825
