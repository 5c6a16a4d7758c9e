"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from armchair.data.scenes import Scenes, ScenesConfig
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.clip import CLIPConfig, CLIPModel
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle1 import DALLE1
from armchair.text.tokenizer import Tokenizer, TokenizerConfig


@pytest.fixture(autouse=True)
def _keep_subnormal_numbers() -> Iterator[None]:
    """Undo what training sets for its whole process."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def _tokenizer() -> Tokenizer:
    scenes = Scenes(ScenesConfig(num_pictures=40, size=64))
    captions = [caption for index in range(40) for caption in scenes.captions(index)]
    return Tokenizer.train(captions, TokenizerConfig(vocab_size=300, context_length=96))


@pytest.fixture(scope="session")
def tiny_model(_tokenizer: Tokenizer) -> DALLE1:
    """An untrained DALL·E of 64x64 pixels and 4x4 codes."""
    torch.manual_seed(0)
    autoencoder = DiscreteVAE(
        DiscreteVAEConfig(
            image_size=64, codebook_size=16, codebook_dim=8, width=8, num_groups=4, patch_size=2
        )
    )
    transformer = TextToImageTransformer(
        TextToImageConfig(
            text_vocab_size=300,
            text_length=96,
            image_vocab_size=16,
            grid_size=4,
            dim=32,
            num_layers=2,
            num_heads=2,
        )
    )
    for model in (autoencoder, transformer):
        model.eval().requires_grad_(False)
    return DALLE1(_tokenizer, autoencoder, transformer)


@pytest.fixture(scope="session")
def _tiny_bundle(tiny_model: DALLE1, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    about = {
        "description": "An untrained toy.",
        "command": "none",
        "recipe": {
            "config": {
                "data": {"source": "scenes", "num_pictures": 40},
                "transformer_training": {"seed": 0},
            },
            "version": "0",
            "commit": None,
        },
        "hardware": "none",
        "date": "2026-01-01",
    }
    tiny_model.save(folder, about=about, card="# tiny\n\nAn untrained toy.\n")
    return folder


@pytest.fixture
def tiny_bundle(_tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the untrained model, to read and to damage."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for file in _tiny_bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def scores() -> dict[str, Any]:
    """What `armchair evaluate` measures, made up."""
    shares = {"all": 0.975, "object": 0.99, "material": None, "size": 1.0, "prompts": 512}
    return {
        "reconstruction": {"psnr_db": 28.1, "reader_accuracy": 0.99},
        "codebook": {"used_fraction": 0.9, "perplexity": 100.0, "pictures": 4096},
        "bits": {"validation": 1.4, "true_elbo": 6.2},
        "seen": dict(shares),
        "held_out": dict(shares),
        "relations": dict(shares),
        "settings": {"sampling": {"temperature": 0.7, "top_k": None}, "seed": 3},
    }


@pytest.fixture(scope="session")
def tiny_clip(_tokenizer: Tokenizer) -> CLIP:
    """An untrained CLIP of 32x32 pixels."""
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            image_size=32,
            patch_size=8,
            image_dim=16,
            image_layers=1,
            image_heads=2,
            text_vocab_size=300,
            text_length=96,
            text_dim=16,
            text_layers=1,
            text_heads=2,
            embedding_dim=8,
        )
    )
    return CLIP(_tokenizer, model.eval().requires_grad_(False))


@pytest.fixture
def clip_bundle(tiny_clip: CLIP, tmp_path: Path) -> Path:
    """A bundle of the untrained CLIP, to read and to damage."""
    about = {"description": "An untrained toy."}
    return tiny_clip.save(tmp_path / "clip", about=about, card="# clip\n").path
