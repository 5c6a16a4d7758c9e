"""What holds for every recipe."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from armchair.cli.main import main
from armchair.models.clip import CLIPModel
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.priors.one_step import OneStepPrior
from armchair.models.sequence.text_to_image import TextToImageTransformer
from armchair.models.unet import UNet
from armchair.pipelines.dalle1 import build_autoencoder
from armchair.pipelines.dalle2_config import build_prior
from armchair.recipes import RECIPES, build_recipe
from armchair.training.clip import CLIPRecipe
from armchair.training.dalle1 import DALLE1Recipe
from armchair.training.dalle2 import DALLE2Recipe


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
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_888_561


def drawn_by(config: Any, text: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """A pass through a prior, and embeddings of the shape that it gives."""
    prior, t = build_prior(config).eval(), torch.zeros(len(text), dtype=torch.int64)
    if isinstance(prior, DiffusionPrior):
        condition = prior.encode({"text": text, "text_embedding": embeddings})
        return prior(torch.empty_like(embeddings), t, condition)
    if isinstance(prior, OneStepPrior):
        return prior(text, embeddings)
    codes = torch.zeros(len(text), config.num_components, dtype=torch.int64)
    logits = prior(text, embeddings, t, codes)
    assert logits.shape == (len(text), config.num_components, config.num_buckets)
    return prior.space.decode(codes)


@pytest.mark.parametrize("name", of_kind(DALLE2Recipe))
@torch.no_grad()
def test_the_parts_of_a_dalle2_fit_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    recipe = build_recipe(name)
    assert recipe.name == name
    with torch.device("meta"):
        told, text = {}, recipe.tokenizer
        t = torch.zeros(2, dtype=torch.int64)
        if text is not None:
            told["text"] = torch.zeros(2, text.context_length, dtype=torch.int64)
        if recipe.clip is not None:
            embeddings = CLIPModel(recipe.clip).eval().encode_texts(told["text"])
            assert embeddings.shape == (2, recipe.clip.embedding_dim)
            told["embedding"] = drawn_by(recipe.prior, told["text"], embeddings)
        size = recipe.decoder.image_size
        decoder = UNet(recipe.decoder).eval()
        out = decoder(torch.empty(2, 3, size, size), t, decoder.encode(told))
        assert out.shape == (2, 6 if recipe.decoder.process.learned_variance else 3, size, size)
        for shape, loss in (
            (recipe.first_upsampler, recipe.first_upsampler_loss),
            (recipe.second_upsampler, recipe.second_upsampler_loss),
        ):
            if shape is None:
                continue
            assert shape.low_size == size
            size = shape.image_size
            upsampler, side = UNet(shape).eval(), loss.crop_size
            low = torch.empty(2, 3, *[side * shape.low_size // size] * 2)
            condition = upsampler.encode({"low": low})
            assert upsampler(torch.empty(2, 3, side, side), t, condition).shape[-1] == side
    assert size == recipe.shape.image_size


def test_dalle2_scenes_fits_into_its_bundle() -> None:
    shape = build_recipe("dalle2-scenes").shape
    with torch.device("meta"):
        parts = [CLIPModel(shape.clip), build_prior(shape.prior), UNet(shape.decoder)]
        parts += [UNet(upsampler) for upsampler in shape.upsamplers]
    sizes = [sum(tensor.numel() for tensor in part.state_dict().values()) for part in parts]
    assert 2 * sum(sizes) <= 25e6, sizes


def test_glide_and_ddpm_are_the_papers() -> None:
    """GLIDE, section 4: a fifth of the captions is left out. DDPM: linear betas, and the noise."""
    glide, ddpm = build_recipe("glide-scenes"), build_recipe("ddpm-scenes")
    assert isinstance(glide, DALLE2Recipe)
    assert isinstance(ddpm, DALLE2Recipe)
    assert glide.decoder_loss.text_dropout == 0.2
    assert glide.decoder.condition_names == ("text",)
    assert ddpm.decoder.condition_names == ()
    process = ddpm.decoder.process
    assert (process.schedule, process.parameterisation) == ("linear", "noise")
