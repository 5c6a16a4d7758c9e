"""A step of a U-Net: ours against diffusers' UNet2DConditionModel of the same shape, in one run.

    pip install diffusers
    python benchmarks/unet_step.py
    python benchmarks/unet_step.py --device cuda

Both are the decoder of dalle2-scenes in random weights: the same widths, levels, blocks with scale
and shift, attention to the same places and to as many tokens. Diffusers is given its blocks of
unCLIP, which are GLIDE's. Each predicts the noise of the same pictures, in turns, so that all see
the same machine: in float32, and under autocast to bfloat16 where the hardware has it; ours draws
with that then, and diffusers with float32 unless it is told otherwise. Ours is as it draws, which
is recorded on a GPU. Theirs is as it comes, and with channels last as its manual advises. Writes
benchmarks/results/unet_step.json, on a GPU unet_step-cuda.json.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from timing import seconds
from torch import Tensor, nn

from armchair.core.cuda_graphs import graphed
from armchair.core.device import autocast, has_fast_bf16, resolve_device
from armchair.core.provenance import provenance
from armchair.models.unet import UNet, UNetConfig
from armchair.recipes import build_recipe
from armchair.training.dalle2_recipe import DALLE2Recipe

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 2, 18)  # a picture, a picture with guidance, nine with guidance
TURNS, WARM_UP = 15, 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
def compare(ours: UNet, rivals: dict[str, nn.Module], batch: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step of each, and how many times as fast ours is: medians over turns."""
    config, generator = ours.config, torch.Generator().manual_seed(0)
    assert config.text is not None

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(ours.device)

    x_t = normal(batch, 3, config.image_size, config.image_size)
    t = torch.full((batch,), 500, device=ours.device)
    tokens = torch.randint(config.text.vocab_size, (batch, config.text.text_length))
    given = {"text": tokens.to(ours.device), "embedding": normal(batch, config.embedding_dim or 0)}
    condition = ours.encode(given)
    steps: dict[str, Callable[[], object]] = {}
    precisions = list(DTYPES) if has_fast_bf16(ours.device) else ["float32"]
    for precision in precisions:
        own = graphed(lambda x_t, t: ours(x_t, t, condition), ours.device)
        steps[f"ours {precision}"] = functools.partial(own, x_t, t)
        for name, model in rivals.items():
            context = condition["context"]
            step = functools.partial(model, x_t, t, encoder_hidden_states=context)
            steps[f"{name} {precision}"] = step
    timings: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + TURNS):
        for name, step in steps.items():
            with autocast(ours.device, DTYPES[name.split()[-1]]):
                found = seconds(lambda step=step: _finished(step, ours.device))
            if turn >= WARM_UP:
                timings[name].append(found)
    pairs = {name: (f"ours {name.split()[-1]}", name) for name in steps if name[:4] != "ours"}
    if "bfloat16" in precisions:
        pairs |= {
            f"{name} float32 by ours bfloat16": ("ours bfloat16", f"{name} float32")
            for name in rivals
        }
    ratios = {
        pair: statistics.median(b / a for a, b in zip(timings[one], timings[other], strict=True))
        for pair, (one, other) in pairs.items()
    }
    medians = {name: 1000 * statistics.median(runs) for name, runs in timings.items()}
    return {"milliseconds": medians, "times_as_fast": ratios}


def _finished(step: Callable[[], object], device: torch.device) -> None:
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure every batch."""
    import diffusers

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or cuda:N (default: cpu)")
    options = parser.parse_args()
    device = resolve_device(options.device)
    torch.manual_seed(0)
    config = decoder()
    assert config.context_dim is not None
    ours = UNet(config).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    plain = rival(config, config.context_dim).to(device).eval()
    theirs: nn.Module = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rivals = {"diffusers": plain, "diffusers, channels last,": theirs}
    trunk = [
        parameter
        for name, parameter in ours.named_parameters()
        if not name.startswith(("text", "embedding"))
    ]
    parameters = {
        "ours": sum(p.numel() for p in trunk),
        "diffusers": sum(p.numel() for p in plain.parameters()),
    }
    rows = {}
    for batch in BATCHES:
        rows[str(batch)] = compare(ours, rivals, batch)
        print(f"batch {batch}: {rows[str(batch)]}", file=sys.stderr, flush=True)
    result = {
        "batches": rows,
        "parameters": parameters,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        **provenance(device),
    }
    file = RESULTS / ("unet_step.json" if device.type == "cpu" else "unet_step-cuda.json")
    file.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(f"| | {' | '.join(f'batch {batch}' for batch in rows)} |\n|{'---|' * (1 + len(rows))}")
    for kind, unit in (("milliseconds", " ms"), ("times_as_fast", " times")):
        for name in rows[str(BATCHES[0])][kind]:
            cells = " | ".join(f"{row[kind][name]:.2f}{unit}" for row in rows.values())
            print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
