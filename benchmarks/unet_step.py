"""A step of a U-Net: ours against diffusers' UNet2DConditionModel of the same shape, in one run.

    pip install diffusers
    python benchmarks/unet_step.py

Both are the decoder of dalle2-scenes in random weights: the same widths, levels, blocks with scale
and shift, attention to the same places and to as many tokens. Diffusers is given its blocks of
unCLIP, which are GLIDE's. Each predicts the noise of the same pictures, in turns, so that all see
the same machine: in float32, and under autocast to bfloat16. Where the hardware has bfloat16 ours
draws with that, and diffusers with float32 unless it is told otherwise. Writes
benchmarks/results/unet_step.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from timing import seconds
from torch import Tensor, nn

from armchair.core.device import autocast
from armchair.core.provenance import provenance
from armchair.models.unet import UNet, UNetConfig
from armchair.recipes import build_recipe
from armchair.training.dalle2_recipe import DALLE2Recipe

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 2, 18)  # a picture, a picture with guidance, nine with guidance
TURNS, WARM_UP = 15, 3
NAMES, DTYPES = ("ours", "diffusers"), {"float32": torch.float32, "bfloat16": torch.bfloat16}
PAIRS = {  # of ours with theirs
    "float32": ("ours float32", "diffusers float32"),
    "bfloat16": ("ours bfloat16", "diffusers bfloat16"),
    "as they draw": ("ours bfloat16", "diffusers float32"),
}


def decoder() -> UNetConfig:
    """The decoder of dalle2-scenes, with three channels out."""
    recipe = build_recipe("dalle2-scenes")
    assert isinstance(recipe, DALLE2Recipe)
    return replace(recipe.decoder, process=replace(recipe.decoder.process, learned_variance=False))


def rival(config: UNetConfig, tokens_dim: int) -> nn.Module:
    """Diffusers' model of the same shape."""
    from diffusers import UNet2DConditionModel

    attends = [config.image_size >> n in config.attention_sizes for n in range(3)]
    down = {True: "SimpleCrossAttnDownBlock2D", False: "ResnetDownsampleBlock2D"}
    up = {True: "SimpleCrossAttnUpBlock2D", False: "ResnetUpsampleBlock2D"}
    return UNet2DConditionModel(
        sample_size=config.image_size,
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(config.channels * m for m in config.multipliers),
        layers_per_block=config.num_blocks,
        down_block_types=tuple(down[one] for one in attends),
        up_block_types=tuple(up[one] for one in reversed(attends)),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=tokens_dim,
        attention_head_dim=config.head_dim,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
    )


@torch.no_grad()
def compare(ours: UNet, theirs: nn.Module, batch: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step of each, and how many times as fast ours is: medians over turns."""
    config, generator = ours.config, torch.Generator().manual_seed(0)
    assert config.text is not None

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x_t = normal(batch, 3, config.image_size, config.image_size)
    t = torch.full((batch,), 500)
    tokens = torch.randint(config.text.vocab_size, (batch, config.text.text_length))
    condition = ours.encode({"text": tokens, "embedding": normal(batch, config.embedding_dim or 0)})
    context = condition["context"]
    steps: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(x_t, t, condition),
        "diffusers": lambda: theirs(x_t, t, encoder_hidden_states=context),
    }
    timings: dict[str, list[float]] = {}
    for turn in range(WARM_UP + TURNS):
        for precision, dtype in DTYPES.items():
            for name, step in steps.items():
                with autocast(torch.device("cpu"), dtype):
                    found = seconds(step)
                if turn >= WARM_UP:
                    timings.setdefault(f"{name} {precision}", []).append(found)
    medians = {name: 1000 * statistics.median(runs) for name, runs in timings.items()}
    ratios = {
        pair: statistics.median(b / a for a, b in zip(timings[one], timings[other], strict=True))
        for pair, (one, other) in PAIRS.items()
    }
    return {"milliseconds": medians, "times_as_fast": ratios}


def main() -> None:
    """Measure every batch."""
    import diffusers

    torch.manual_seed(0)
    config = decoder()
    assert config.context_dim is not None
    ours = UNet(config).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    theirs = rival(config, config.context_dim).eval()
    trunk = [
        parameter
        for name, parameter in ours.named_parameters()
        if not name.startswith(("text", "embedding"))
    ]
    parameters = {
        "ours": sum(p.numel() for p in trunk),
        "diffusers": sum(p.numel() for p in theirs.parameters()),
    }
    rows = {}
    for batch in BATCHES:
        rows[str(batch)] = compare(ours, theirs, batch)
        print(f"batch {batch}: {rows[str(batch)]}", file=sys.stderr, flush=True)
    result = {
        "batches": rows,
        "parameters": parameters,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        **provenance(torch.device("cpu")),
    }
    (RESULTS / "unet_step.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    names = [f"{name} {precision}" for precision in DTYPES for name in NAMES]
    print(f"| batch | {' | '.join([*names, *PAIRS])} |\n|{'---|' * (1 + len(names) + len(PAIRS))}")
    for batch, row in rows.items():
        ms = " | ".join(f"{row['milliseconds'][name]:.0f} ms" for name in names)
        ratios = " | ".join(f"{row['times_as_fast'][pair]:.2f}" for pair in PAIRS)
        print(f"| {batch} | {ms} | {ratios} |")


if __name__ == "__main__":
    main()
