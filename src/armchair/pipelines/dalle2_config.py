"""What a DALL·E 2 is built from, and how it draws.

Its parts may be absent: without a CLIP and a prior it is a GLIDE, which draws from the caption
alone, and without captions a DDPM, which draws what it likes.
"""

from __future__ import annotations

from dataclasses import dataclass

from armchair.core.device import PRECISIONS, Precision
from armchair.core.errors import ConfigError, UnknownNameError
from armchair.models.clip import CLIPConfig
from armchair.models.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.priors.one_step import OneStepPrior, OneStepPriorConfig
from armchair.models.unet import UNetConfig
from armchair.sampling.diffusion import (
    PICTURE_SAMPLERS,
    SAMPLERS,
    DiffusionSampling,
    Sampler,
)

UPSAMPLERS = ("first_upsampler", "second_upsampler")

Prior = DiffusionPrior | AutoregressivePrior | OneStepPrior
PriorConfig = DiffusionPriorConfig | AutoregressivePriorConfig | OneStepPriorConfig

_KNOWN_SAMPLERS = {
    "prior_sampler": SAMPLERS,
    "decoder_sampler": PICTURE_SAMPLERS,
    "upsampler_sampler": PICTURE_SAMPLERS,
}
_MOST_CANDIDATES = 1000  # embeddings of a prior, of which the best is kept


@dataclass(frozen=True, kw_only=True)
class DALLE2SamplingConfig:
    """How pictures are drawn; what is said of an absent part counts for nothing.

    Attributes:
        prior_steps: Steps of a diffusion prior.
        prior_guidance_scale: 1 for none; above it, the caption counts for more with the prior.
        prior_sampler: How a diffusion prior draws; see `DiffusionSampling`.
        prior_candidates: Embeddings that a diffusion prior draws, of which the best is kept.
        decoder_steps: Steps of the decoder.
        guidance_scale: The same as the prior's, of the decoder.
        percentile: None to clip what the decoder predicts; in (0, 1) to scale it back from this
            percentile of its magnitudes (dynamic thresholding), for strong guidance.
        decoder_sampler: How the decoder draws.
        first_upsampler_steps: Steps of the first upsampler.
        second_upsampler_steps: Steps of the second.
        upsampler_sampler: How both draw.
        precision: Of the matrix products of decoder and upsamplers: "bf16", "fp32", or "auto" for
            bfloat16 where the hardware has it.
    """

    prior_steps: int = 10
    prior_guidance_scale: float = 1.0
    prior_sampler: Sampler = "dpm_solver"
    prior_candidates: int = 2
    decoder_steps: int = 20
    guidance_scale: float = 1.0
    percentile: float | None = None
    decoder_sampler: Sampler = "dpm_solver"
    first_upsampler_steps: int = 7
    second_upsampler_steps: int = 7
    upsampler_sampler: Sampler = "dpm_solver"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(name, got=value, expected="at least 1")
        if self.prior_candidates > _MOST_CANDIDATES:
            got, expected = self.prior_candidates, f"1 to {_MOST_CANDIDATES}"
            raise ConfigError("prior_candidates", got=got, expected=expected, hint="2 in the paper")
        for name, known in _KNOWN_SAMPLERS.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.percentile is not None and not 0 < self.percentile < 1:
            hint = "0.995 is usual"
            raise ConfigError("percentile", got=self.percentile, expected="in (0, 1)", hint=hint)
        for name in ("prior_guidance_scale", "guidance_scale"):
            if not 1 <= getattr(self, name) <= 100:
                hint = "1 is no guidance; 2 to 5 follow the caption more closely"
                raise ConfigError(name, got=getattr(self, name), expected="1 to 100", hint=hint)

    @property
    def of_prior(self) -> DiffusionSampling:
        """How a diffusion prior draws."""
        return DiffusionSampling(
            num_steps=self.prior_steps,
            sampler=self.prior_sampler,
            guidance_scale=self.prior_guidance_scale,
        )

    @property
    def of_decoder(self) -> DiffusionSampling:
        """How the decoder draws."""
        return DiffusionSampling(
            num_steps=self.decoder_steps,
            sampler=self.decoder_sampler,
            guidance_scale=self.guidance_scale,
            percentile=self.percentile,
            precision=self.precision,
        )

    def of_upsampler(self, number: int) -> DiffusionSampling:
        """How an upsampler draws, the first of which has the number 0."""
        steps = (self.first_upsampler_steps, self.second_upsampler_steps)[number]
        return DiffusionSampling(
            num_steps=steps, sampler=self.upsampler_sampler, precision=self.precision
        )


@dataclass(frozen=True, kw_only=True)
class DALLE2Config:
    """The shapes of all parts; those that are None are absent.

    Attributes:
        clip: The CLIP, which goes with a prior and with a decoder that takes its embeddings.
        prior: The prior.
        decoder: The decoder.
        first_upsampler: What enlarges the decoder's pictures.
        second_upsampler: What enlarges those again.
    """

    clip: CLIPConfig | None = None
    prior: PriorConfig | None = None
    decoder: UNetConfig
    first_upsampler: UNetConfig | None = None
    second_upsampler: UNetConfig | None = None

    def __post_init__(self) -> None:
        embedding_dim = None if self.clip is None else self.clip.embedding_dim
        of_prior = None if self.prior is None else self.prior.embedding_dim
        for name, found in (
            ("prior.embedding_dim", of_prior),
            ("decoder.embedding_dim", self.decoder.embedding_dim),
        ):
            if found != embedding_dim:
                raise ConfigError(name, got=found, expected=f"{embedding_dim}, as clip has")
        for name, found in self._text_shapes().items():
            if found != self.text_shape:
                expected = f"{self.text_shape} tokens and positions, as the other parts have"
                raise ConfigError(name, got=found, expected=expected)
        if self.decoder.low_size is not None:
            raise ConfigError("decoder.low_size", got=self.decoder.low_size, expected="None")
        if self.first_upsampler is None and self.second_upsampler is not None:
            raise ConfigError("first_upsampler", got=None, expected="one, as there is a second")
        size = self.decoder.image_size
        for name, upsampler in zip(UPSAMPLERS, self.upsamplers, strict=False):
            if upsampler.condition_names != ("low",):
                expected = "low alone, as it is told nothing else"
                raise ConfigError(name, got=upsampler.condition_names, expected=expected)
            if upsampler.attention_sizes:
                expected = "none, as it learns on crops and enlarges pictures of any size"
                got = upsampler.attention_sizes
                raise ConfigError(f"{name}.attention_sizes", got=got, expected=expected)
            if upsampler.low_size != size:
                got, expected = upsampler.low_size, f"{size}, the side of what it gets"
                raise ConfigError(f"{name}.low_size", got=got, expected=expected)
            size = upsampler.image_size

    @property
    def upsamplers(self) -> list[UNetConfig]:
        """Those that are there, first to last."""
        both = (self.first_upsampler, self.second_upsampler)
        return [upsampler for upsampler in both if upsampler is not None]

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels."""
        return [self.decoder, *self.upsamplers][-1].image_size

    @property
    def setting_names(self) -> tuple[str, ...]:
        """The settings of `DALLE2SamplingConfig` that mean something for these parts."""
        names: list[str] = []
        if isinstance(self.prior, DiffusionPriorConfig):
            names += ["prior_steps", "prior_sampler", "prior_candidates"]
        if isinstance(self.prior, DiffusionPriorConfig | AutoregressivePriorConfig):
            names += ["prior_guidance_scale"]
        names += ["decoder_steps", "decoder_sampler", "percentile"]
        if self.decoder.condition_names:
            names += ["guidance_scale"]
        names += [f"{name}_steps" for name in UPSAMPLERS[: len(self.upsamplers)]]
        if self.upsamplers:
            names += ["upsampler_sampler"]
        names += ["precision"]
        return tuple(names)

    def check(self, sampling: DALLE2SamplingConfig) -> None:
        """Refuse settings that these parts cannot draw with.

        Raises:
            ConfigError: A part has fewer timesteps than it is to take steps, does not know the
                sampler, or has nothing to be guided by.
        """
        for part in ("prior", "decoder", *UPSAMPLERS):
            name = f"{part}_steps"
            if name not in self.setting_names:
                continue
            most = getattr(self, part).process.num_timesteps
            if getattr(sampling, name) > most:
                expected, hint = f"1 to {most}", "10 to 50 are usually enough"
                raise ConfigError(name, got=getattr(sampling, name), expected=expected, hint=hint)
        if sampling.guidance_scale != 1 and not self.decoder.condition_names:
            expected = "1, as the decoder has no caption or embedding to follow"
            raise ConfigError("guidance_scale", got=sampling.guidance_scale, expected=expected)

    @property
    def text_shape(self) -> tuple[int, int] | None:
        """Text tokens and text positions; None if no part reads captions."""
        return next(iter(self._text_shapes().values()), None)

    def _text_shapes(self) -> dict[str, tuple[int, int]]:
        shapes = {}
        if self.clip is not None:
            shapes["clip"] = (self.clip.text_vocab_size, self.clip.text_length)
        if self.prior is not None:
            stream = self.prior.stream
            shapes["prior.stream"] = (stream.vocab_size, stream.text_length)
        if self.decoder.text is not None:
            text = self.decoder.text
            shapes["decoder.text"] = (text.vocab_size, text.text_length)
        return shapes


def build_prior(config: PriorConfig) -> Prior:
    """The prior that a configuration describes."""
    if isinstance(config, DiffusionPriorConfig):
        return DiffusionPrior(config)
    if isinstance(config, AutoregressivePriorConfig):
        return AutoregressivePrior(config)
    return OneStepPrior(config)
