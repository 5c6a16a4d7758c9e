"""Armchair's own part in `bench.py` and `autoencoder_race.py`."""

from __future__ import annotations

import dataclasses
import math
import sys
from functools import partial
from typing import Any, Literal

import torch
from learning import learn_as_told
from serving import Run, serve
from shapes import AUTOENCODER_CODES, AUTOENCODER_PIXELS, SHAPES
from torch.utils.flop_counter import FlopCounterMode

from armchair.core.device import autocast, has_fast_bf16, prepare_for_training
from armchair.models.autoencoders.dvae import DiscreteVAE
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.recipes import build_recipe
from armchair.sampling.tokens import sample
from armchair.training.dalle1 import DALLE1Recipe
from armchair.training.objectives.discrete_vae import DiscreteVAEObjective
from armchair.training.optim import build_optimizers

CPU = torch.device("cpu")
WARM_UP = 8  # image tokens


def build(task: str, shape: str, batch: int, variant: str) -> tuple[Run, dict[str, Any]]:
    """A task; the variant is its precision: of weights for drawing, autocast for training."""
    torch.manual_seed(0)
    dtype = getattr(torch, variant)
    about = {"torch": torch.__version__, "precision": str(dtype).removeprefix("torch.")}
    if task == "autoencoder":
        learner = AutoencoderLearner("1.0M", dtype, "adamw")
        model, images = learner.model, torch.rand(batch, 3, AUTOENCODER_PIXELS, AUTOENCODER_PIXELS)
        with FlopCounterMode(display=False) as counter:
            learner.update(images, 0.5)
        about["operations_per_unit"] = counter.get_total_flops() / batch

        def run() -> int:
            learner.update(images, 0.5)
            return batch

    else:
        model = TextToImageTransformer(TextToImageConfig(**SHAPES[shape].config))
        run = {"sample": _sampling, "train": _training}[task](model, shape, batch, dtype)
    return run, {**about, "parameters": sum(p.numel() for p in model.parameters())}


def _sampling(model: TextToImageTransformer, shape: str, batch: int, dtype: torch.dtype) -> Run:
    sizes = SHAPES[shape]
    text = torch.randint(sizes.text_vocab, (1, sizes.text_length)).repeat(batch, 1)
    keys = [(0, index) for index in range(batch)]

    def draw(prime: torch.Tensor | None = None) -> int:
        top_k = sizes.image_vocab // 2
        sample(model, text, keys=keys, top_k=top_k, prime=prime, weight_dtype=dtype)
        return batch * sizes.image_length

    given = sizes.image_length - WARM_UP
    draw(torch.randint(sizes.image_vocab, (1, given)).repeat(batch, 1))
    return draw


def _training(model: TextToImageTransformer, shape: str, batch: int, dtype: torch.dtype) -> Run:
    sizes = SHAPES[shape]
    text = torch.randint(sizes.text_vocab, (batch, sizes.text_length))
    codes = torch.randint(sizes.image_vocab, (batch, sizes.image_length))
    prepare_for_training()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def update() -> int:
        with autocast(CPU, dtype):
            loss = model.loss(text, codes)
        (loss.text / 8 + loss.image * 7 / 8).backward()
        optimizer.step()
        optimizer.zero_grad()
        return batch * sizes.length

    update()
    return update


AUTOENCODERS: dict[str, dict[str, Any]] = {
    "1.0M": {"patch_size": 8, "num_groups": 1, "width": 192, "blocks_per_group": 3},
    "0.43M": {"patch_size": 4, "num_groups": 2, "width": 96, "blocks_per_group": 1},
}
"""Shapes by their parameters; the rival's has a million as well."""


class AutoencoderLearner:
    """A discrete VAE, trained as the recipe `scenes` trains its own.

    Args:
        shape: A name of `AUTOENCODERS`.
        dtype: Of autocast.
        hidden_matrices: See `OptimizerConfig`; the recipe's if not given.
    """

    def __init__(
        self, shape: str, dtype: torch.dtype, hidden_matrices: Literal["adamw"] | None = None
    ) -> None:
        recipe = build_recipe("scenes")
        assert isinstance(recipe, DALLE1Recipe)
        torch.manual_seed(0)
        config = dataclasses.replace(
            recipe.autoencoder,
            image_size=AUTOENCODER_PIXELS,
            codebook_size=AUTOENCODER_CODES,
            input_kernel=1,
            **AUTOENCODERS[shape],
        )
        self.model = DiscreteVAE(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        validation = torch.zeros(1, 3, AUTOENCODER_PIXELS, AUTOENCODER_PIXELS)
        self.objective = DiscreteVAEObjective(self.model, recipe.autoencoder_loss, validation)
        self.config = recipe.autoencoder_training.optimizer
        if hidden_matrices is not None:
            self.config = dataclasses.replace(self.config, hidden_matrices=hidden_matrices)
        self.optimizers = build_optimizers(self.model, self.config)
        self.generator = torch.Generator().manual_seed(0)
        self.dtype = dtype
        prepare_for_training()

    def update(self, images: torch.Tensor, progress: float) -> None:
        """One step."""
        batch = {"images": images * 2 - 1}
        with autocast(CPU, self.dtype):
            loss = self.objective.loss(batch, progress=progress, generator=self.generator)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate(progress)
            optimizer.step()
            optimizer.zero_grad()
        self.objective.after_update(self.generator)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Codes of pictures in [0, 1]."""
        return self.model.encode(images * 2 - 1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1]."""
        return self.model.decode(codes) / 2 + 0.5


if __name__ == "__main__":
    if sys.argv[1] == "learn":
        precision = torch.bfloat16 if has_fast_bf16(CPU) else torch.float32
        learn_as_told(AutoencoderLearner(sys.argv[4], precision))
    else:
        serve(partial(build))
