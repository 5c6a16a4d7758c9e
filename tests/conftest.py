"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from armchair.data.scenes import Scenes, ScenesConfig
from armchair.diffusion.process import ProcessConfig
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.clip import CLIPConfig, CLIPModel
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNet, UNetConfig
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle1 import DALLE1
from armchair.pipelines.dalle2 import DALLE2
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.text.tokenizer import Tokenizer, TokenizerConfig

# Two workers of two threads each, on two cores, mostly wait for one another.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # in the commands that tests start


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


@pytest.fixture(scope="session")
def tiny_dalle2(_tokenizer: Tokenizer, tiny_clip: CLIP) -> DALLE2:
    """An untrained DALL·E 2 of 64x64 pixels, by 16 → 32 → 64."""
    text = TextStreamConfig(vocab_size=300, text_length=96, dim=16, num_layers=1, num_heads=2)

    def upsampler(low_size: int) -> UNetConfig:
        return UNetConfig(
            image_size=2 * low_size,
            low_size=low_size,
            channels=8,
            multipliers=(1, 2),
            num_blocks=1,
            process=ProcessConfig(num_timesteps=20, parameterisation="v"),
        )

    torch.manual_seed(0)
    prior = DiffusionPrior(
        DiffusionPriorConfig(
            stream=text,
            embedding_dim=8,
            process=ProcessConfig(num_timesteps=20, parameterisation="x_0"),
            scaling="whiten",
        )
    )
    decoder = UNet(
        UNetConfig(
            image_size=16,
            channels=8,
            multipliers=(1, 2),
            num_blocks=1,
            process=ProcessConfig(num_timesteps=20, parameterisation="v", learned_variance=True),
            attention_sizes=(8,),
            head_dim=8,
            text=text,
            embedding_dim=8,
        )
    )
    upsamplers = [UNet(upsampler(16)), UNet(upsampler(32))]
    with torch.no_grad():  # random numbers where new models have zeros
        for model in (prior, decoder, *upsamplers):
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    for model in (prior, decoder, *upsamplers):
        model.eval().requires_grad_(False)
    sampling = DALLE2SamplingConfig(
        prior_steps=2,
        decoder_steps=4,
        first_upsampler_steps=2,
        second_upsampler_steps=3,
        precision="fp32",  # random numbers make more of rounding than a model that has learned
    )
    return DALLE2(_tokenizer, tiny_clip.model, prior, decoder, upsamplers, sampling=sampling)


@pytest.fixture(scope="session")
def tiny_ddpm(tiny_dalle2: DALLE2) -> DALLE2:
    """An untrained DDPM of 16x16 pixels."""
    config = dataclasses.replace(tiny_dalle2.decoder.config, text=None, embedding_dim=None)
    torch.manual_seed(0)
    decoder = UNet(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    decoder.eval().requires_grad_(False)
    sampling = DALLE2SamplingConfig(decoder_steps=4, precision="fp32")
    return DALLE2(None, None, None, decoder, sampling=sampling)


@pytest.fixture
def dalle2_bundle(tiny_dalle2: DALLE2, tmp_path: Path) -> Path:
    """A bundle of the untrained DALL·E 2, to read and to damage."""
    about = {"description": "An untrained toy."}
    return tiny_dalle2.save(tmp_path / "dalle2", about=about, card="# dalle2\n").path


@pytest.fixture
def ddpm_bundle(tiny_ddpm: DALLE2, tmp_path: Path) -> Path:
    """A bundle of the untrained DDPM."""
    return tiny_ddpm.save(tmp_path / "ddpm", about={}, card="# ddpm\n").path
