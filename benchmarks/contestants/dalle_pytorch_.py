"""dalle-pytorch, the DALL·E that most people have tried.

Five modules that it imports for other purposes cannot be installed today; stand-ins that do
nothing take their place. Its cache is used only under guidance, which costs a second pass, so that
both settings are among the variants.
"""

from __future__ import annotations

import importlib.metadata
import math
import sys
import types
from typing import Any
from unittest import mock

import torch
from learning import learn_as_told
from serving import Run, serve
from shapes import AUTOENCODER_BATCH, AUTOENCODER_CODES, AUTOENCODER_PIXELS, SHAPES

STAND_INS = (
    "youtokentome",
    "torchvision",
    "torchvision.transforms",
    "taming",
    "taming.models",
    "taming.models.vqgan",
    "omegaconf",
    "requests",
    "yaml",
    "ftfy",
)
TYPES = {"full": ("full",), "mix": ("axial_row", "axial_col", "axial_row", "conv_like")}


def build(task: str, shape: str, batch: int, variant: str) -> tuple[Run, dict[str, Any]]:
    """A task; the variant is "full" or "mix", for sampling also with "-cached" behind it.

    For training it is followed by its precision: "full-bfloat16" trains under autocast.
    """
    torch.manual_seed(0)
    library = _imported()
    about: dict[str, Any] = {
        "dalle-pytorch": importlib.metadata.version("dalle-pytorch"),
        "torch": torch.__version__,
        "precision": "bfloat16" if variant.endswith("bfloat16") else "float32",
    }
    pattern, _, setting = variant.partition("-")
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=setting == "bfloat16")
    if task == "autoencoder":
        model = _autoencoder(library, layers=3, hidden=64)
        run = _training_autoencoder(model, autocast)
    else:
        model = _transformer(library, shape, pattern)
        if task == "sample":
            run = _sampling(model, shape, batch, cached=setting == "cached")
        else:
            run = _training(model, shape, batch, autocast)
    return run, {**about, "parameters": sum(p.numel() for p in model.parameters())}


def _imported() -> Any:
    for name in STAND_INS:
        if name not in sys.modules:
            sys.modules[name] = mock.MagicMock(name=name)
    resources = types.ModuleType("pkg_resources")
    resources.get_distribution = importlib.metadata.distribution  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", resources)
    import dalle_pytorch

    return dalle_pytorch


def _autoencoder(library: Any, *, layers: int, hidden: int, **changes: Any) -> Any:
    settings = {
        "image_size": AUTOENCODER_PIXELS,
        "num_tokens": AUTOENCODER_CODES,
        "codebook_dim": 256,
        "num_layers": layers,
        "num_resnet_blocks": 2,
        "hidden_dim": hidden,
        **changes,
    }
    return library.DiscreteVAE(**settings)


def _transformer(library: Any, shape: str, pattern: str) -> Any:
    sizes = SHAPES[shape]
    vae = _autoencoder(
        library,
        layers=1,
        hidden=8,
        image_size=2 * sizes.grid_size,
        num_tokens=sizes.image_vocab,
        codebook_dim=8,
        num_resnet_blocks=0,
    )
    return library.DALLE(
        dim=sizes.dim,
        vae=vae,
        num_text_tokens=sizes.text_vocab,
        text_seq_len=sizes.text_length,
        depth=sizes.num_layers,
        heads=sizes.num_heads,
        dim_head=sizes.dim // sizes.num_heads,
        attn_types=TYPES[pattern],
    )


def _sampling(model: Any, shape: str, batch: int, *, cached: bool) -> Run:
    sizes = SHAPES[shape]
    text = torch.randint(1, sizes.text_vocab, (1, sizes.text_length)).repeat(batch, 1)
    scale = 1.001 if cached else 1.0  # without guidance it drops its cache
    model.eval()

    @torch.no_grad()
    def draw() -> int:
        model.generate_images(text, cond_scale=scale, use_cache=cached)
        return batch * sizes.image_length

    return draw


def _training(model: Any, shape: str, batch: int, autocast: Any) -> Run:
    sizes = SHAPES[shape]
    text = torch.randint(1, sizes.text_vocab, (batch, sizes.text_length))
    codes = torch.randint(sizes.image_vocab, (batch, sizes.image_length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def update() -> int:
        with autocast:
            loss = model(text, codes, return_loss=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return batch * sizes.length

    return update


def _training_autoencoder(model: Any, autocast: Any) -> Run:
    images = torch.rand(AUTOENCODER_BATCH, 3, AUTOENCODER_PIXELS, AUTOENCODER_PIXELS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def update() -> int:
        with autocast:
            loss = model(images, return_loss=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return AUTOENCODER_BATCH

    update()
    return update


class AutoencoderLearner:
    """Its discrete VAE, trained as its own script does: Adam, falling by 2% every 100 steps.

    The script's temperature falls to 0.5 over 700,000 steps and so hardly moves.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = _autoencoder(_imported(), layers=3, hidden=64)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=0.98)
        self.steps = 0

    def update(self, images: torch.Tensor, progress: float) -> None:
        """One step."""
        temperature = max(math.exp(-1e-6 * self.steps), 0.5)
        self.model(images, return_loss=True, temp=temperature).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        if self.steps % 100 == 0:
            self.schedule.step()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Codes of pictures in [0, 1]."""
        return self.model.get_codebook_indices(images)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1]."""
        return self.model.decode(codes) / 2 + 0.5


if __name__ == "__main__":
    if sys.argv[1] == "learn":
        learn_as_told(AutoencoderLearner())
    else:
        serve(build)
