"""Command-line options from dataclasses, read by tyro, with our errors and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

from armchair.core.errors import UsageError

Options = TypeVar("Options")

SHIPPED_DALLE2 = "dalle2-scenes"
"""The model that comes with the package to vary, interpolate, edit and redraw pictures."""
SHIPPED_CLIP = "clip-scenes"
"""The model that comes with the package to judge what those beside it draw."""


def read_options(
    kind: type[Options], words: Sequence[str], *, verb: str, default: Any = None
) -> Options:
    """Read a verb's options; bad ones end the program with exit code 2 and a suggestion.

    Args:
        kind: A dataclass whose fields are the options.
        words: What follows the verb on the command line.
        verb: Its name, for the help.
        default: Values that are used where none are given.
    """
    extra = {} if default is None else {"default": default}
    try:
        return tyro.cli(
            kind,
            args=list(words),
            prog=f"armchair {verb}",
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
            **extra,
        )
    except SystemExit as stop:
        if stop.code:
            print(f"hint: `armchair {verb} --help` lists the options", file=sys.stderr)
        raise


@dataclass(kw_only=True)
class PaintingOptions:
    """How decoder and upsamplers paint, where that is to differ from the model's own settings.

    An option that means nothing for the model is refused.
    """

    guidance_scale: float | None = None
    """Above 1, the prompt counts for more."""
    percentile: float | None = None
    """DALL·E 2: scale pictures back from this percentile, in (0, 1), where guidance saturates
    them."""
    decoder_steps: int | None = None
    """DALL·E 2: steps of the decoder."""
    first_upsampler_steps: int | None = None
    """DALL·E 2: steps of the first upsampler."""
    second_upsampler_steps: int | None = None
    """DALL·E 2: steps of the second upsampler."""
    upsampler_sampler: str | None = None
    """DALL·E 2: how the upsamplers draw: dpm_solver, ddim, or ddpm, which wants many steps."""
    precision: str | None = None
    """DALL·E 2: fp32, or bf16, which draws faster where the hardware has it; auto takes that.
    DALL·E 1: what weights are kept in, fp32, bf16, or int8: fewer bits are faster where few
    pictures are drawn at once."""

    def given(self) -> dict[str, Any]:
        """Those that were given, by the name of the setting."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(kw_only=True)
class DiffusionOptions(PaintingOptions):
    """How a model that draws from prompts by diffusion does so, its prior included."""

    prior_guidance_scale: float | None = None
    """DALL·E 2: above 1, the prompt counts for more with the prior."""
    prior_steps: int | None = None
    """DALL·E 2: steps of a diffusion prior."""
    prior_sampler: str | None = None
    """DALL·E 2: how a diffusion prior draws: dpm_solver, ddim, ddpm or analytic_dpm."""
    prior_candidates: int | None = None
    """DALL·E 2: embeddings that a diffusion prior draws, of which the best is kept."""
    decoder_sampler: str | None = None
    """DALL·E 2: how the decoder draws; as for the upsamplers."""


@dataclass(kw_only=True)
class SamplingOptions(DiffusionOptions):
    """How any model draws, where that is to differ from its own settings."""

    temperature: float | None = None
    """DALL·E 1: below 1 draws likelier pictures."""
    top_k: int | None = None
    """DALL·E 1: draw each code among this many likeliest image codes."""
    top_p: float | None = None
    """DALL·E 1: draw each code among the likeliest that together have this probability."""


def ranking_clip(model: Any, name: str | None, *, own: str, device: str) -> tuple[Any, str]:
    """The CLIP that is to rank candidates, and its name.

    Args:
        model: What draws; a DALL·E 2 has a CLIP of its own.
        name: The CLIP that was asked for; if not given the model's own, or for a model that ships
            the one that ships beside it.
        own: What the model is called.
        device: Where to compute.

    Raises:
        UsageError: None was named, and the model has none.
    """
    from armchair.pipelines import load_clip
    from armchair.pipelines.bundle_search import shipped_bundles

    if name is None and getattr(model, "clip", None) is not None:
        return model.clip, own
    if name is None and own in shipped_bundles():
        name = SHIPPED_CLIP
    if name is None:
        hint = f"--clip {SHIPPED_CLIP} knows scenes; `armchair train clip-scenes` makes another"
        raise UsageError("clip", got=None, expected="a CLIP to rank the candidates", hint=hint)
    return load_clip(name, device=device, field="clip"), name
