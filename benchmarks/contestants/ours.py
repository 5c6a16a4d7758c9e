"""Armchair's own part in `bench.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from serving import Run, serve
from shapes import AUTOENCODER_BATCH, AUTOENCODER_CODES, AUTOENCODER_PIXELS, SHAPES
from torch.utils.flop_counter import FlopCounterMode

from armchair.core.device import autocast, prepare_for_training
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.sampling.tokens import sample
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig, DiscreteVAEObjective

CPU = torch.device("cpu")
WARM_UP = 8  # image tokens


def build(task: str, shape: str, batch: int, variant: str) -> tuple[Run, dict[str, Any]]:
    """A task; the variant is its precision: of weights for drawing, autocast for training."""
    torch.manual_seed(0)
    dtype = getattr(torch, variant)
    about = {"torch": torch.__version__, "precision": str(dtype).removeprefix("torch.")}
    if task == "autoencoder":
        model, run = _autoencoder(dtype)
        with FlopCounterMode(display=False) as counter:
            pictures = run()
        about["operations_per_unit"] = counter.get_total_flops() / pictures
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


def _autoencoder(dtype: torch.dtype) -> tuple[DiscreteVAE, Run]:
    config = DiscreteVAEConfig(
        image_size=AUTOENCODER_PIXELS,
        codebook_size=AUTOENCODER_CODES,
        width=96,
        num_groups=2,
        blocks_per_group=1,
        patch_size=4,
        input_kernel=3,
    )
    model = DiscreteVAE(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(AUTOENCODER_BATCH, 3, AUTOENCODER_PIXELS, AUTOENCODER_PIXELS) * 2 - 1
    objective = DiscreteVAEObjective(model, DiscreteVAELossConfig(), images)
    prepare_for_training()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def update() -> int:
        with autocast(CPU, dtype):
            generator = torch.Generator().manual_seed(0)
            loss = objective.loss({"images": images}, progress=0.5, generator=generator)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        return AUTOENCODER_BATCH

    return model, update


if __name__ == "__main__":
    serve(partial(build))
