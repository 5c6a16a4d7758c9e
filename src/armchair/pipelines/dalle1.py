"""DALL·E 1 as something to draw with: a tokenizer, an autoencoder, and a transformer.

model = armchair.load("dalle1-scenes")
pictures = model.generate("an armchair in the shape of an avocado", count=9, seed=0)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor, nn

from armchair.core.config import to_dict
from armchair.core.device import autocast
from armchair.core.errors import BundleError, ConfigError, UnknownNameError, UsageError
from armchair.core.images import to_pil
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.bundle import Bundle, load_weights, read_config, write_bundle
from armchair.pipelines.drawing import Drawing, Progress
from armchair.sampling.tokens import sample
from armchair.text.tokenizer import Tokenizer, TokenizerConfig

KIND = "dalle1"

WEIGHT_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
"""What the transformer's weights can be kept in while it draws, by the names of the setting."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are drawn.

    Attributes:
        temperature: Divides the logits; above 0. For the likeliest tokens alone, top_k = 1.
        top_k: Draw among this many likeliest image tokens; None for all.
        top_p: Draw among the likeliest image tokens that together have this probability; None for
            all.
        guidance_scale: 1 for none; above it, the caption counts for more.
        precision: What the transformer's weights are kept in while it draws: "fp32", "bf16", or, on
            a CPU alone, "int8". Fewer bits are read faster, which tells where few pictures are
            drawn at once.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float = 1.0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 100:
            raise ConfigError(
                "temperature",
                got=self.temperature,
                expected="above 0, at most 100",
                hint="1 draws as the model was trained to; top_k = 1 takes the likeliest tokens",
            )
        if self.top_k is not None and self.top_k < 1:
            hint = "leave it out to draw among all"
            raise ConfigError("top_k", got=self.top_k, expected="at least 1", hint=hint)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            hint = "1 draws among all"
            raise ConfigError("top_p", got=self.top_p, expected="above 0, at most 1", hint=hint)
        if not 1 <= self.guidance_scale <= 100:
            hint = "1 is no guidance; 2 to 5 follow the caption more closely"
            raise ConfigError(
                "guidance_scale", got=self.guidance_scale, expected="1 to 100", hint=hint
            )
        if self.precision not in WEIGHT_DTYPES:
            raise UnknownNameError("precision", self.precision, WEIGHT_DTYPES)


def build_autoencoder(config: DiscreteVAEConfig | VQVAEConfig) -> ImageTokenizer:
    """The image tokenizer that a configuration describes."""
    return DiscreteVAE(config) if isinstance(config, DiscreteVAEConfig) else VQVAE(config)


def check_fit(
    tokenizer: TokenizerConfig,
    autoencoder: DiscreteVAEConfig | VQVAEConfig,
    transformer: TextToImageConfig,
) -> None:
    """Refuse parts that do not speak of the same tokens.

    Raises:
        ConfigError: The transformer has other text tokens or positions than the tokenizer, or other
            codes or another grid than the autoencoder.
    """
    wanted = {
        "text_vocab_size": ("tokenizer.vocab_size", tokenizer.vocab_size),
        "text_length": ("tokenizer.context_length", tokenizer.context_length),
        "image_vocab_size": ("autoencoder.codebook_size", autoencoder.codebook_size),
        "grid_size": ("the autoencoder's grid", autoencoder.grid_size),
    }
    for name, (source, value) in wanted.items():
        got = getattr(transformer, name)
        if got != value:
            expected = f"{value}, as {source}"
            raise ConfigError(f"transformer.{name}", got=got, expected=expected)


class DALLE1(Drawing[SamplingSettings]):
    """A whole DALL·E 1.

    Args:
        tokenizer: Captions to tokens.
        autoencoder: Codes to pictures and back.
        transformer: Tokens to codes.
        sampling: The settings that `generate` uses where it is given none.
    """

    work = "tokens"
    tokenizer: Tokenizer  # type: ignore[assignment]

    def __init__(
        self,
        tokenizer: Tokenizer,
        autoencoder: ImageTokenizer,
        transformer: TextToImageTransformer,
        *,
        sampling: SamplingSettings | None = None,
    ) -> None:
        self.tokenizer = tokenizer  # type: ignore[assignment]
        self.autoencoder = autoencoder
        self.transformer = transformer
        self.sampling = sampling or SamplingSettings()

    @classmethod
    def load(cls, bundle: Bundle, device: torch.device) -> DALLE1:
        """Build the model of a checked bundle.

        Raises:
            BundleError: The bundle is of another kind, or its files do not fit together.
        """
        config = read_config(bundle, KIND, _BundleConfig)
        first, second = config.autoencoder, config.transformer
        tokenizer = Tokenizer.load(bundle.path / "tokenizer.json")
        try:
            check_fit(tokenizer.config, first, second)
        except ConfigError as error:
            reason = str(error).partition("\n")[0]
            raise BundleError(f"{bundle.path}: its files do not fit together: {reason}") from error
        autoencoder = load_weights(
            bundle,
            "autoencoder",
            lambda: build_autoencoder(first),
            num_layers=first.num_groups * first.blocks_per_group,
        )
        transformer = load_weights(
            bundle,
            "transformer",
            lambda: TextToImageTransformer(second),
            num_layers=second.num_layers,
        )
        for model in (autoencoder, transformer):
            model.to(device).eval().requires_grad_(False)
        return cls(tokenizer, autoencoder, transformer, sampling=config.sampling)

    def save(self, folder: Path, *, about: dict[str, Any], card: str) -> Bundle:
        """Write the model as a bundle; see `write_bundle`."""
        config = _BundleConfig(
            autoencoder=self.autoencoder.config,  # type: ignore[arg-type]
            transformer=self.transformer.config,
            sampling=self.sampling,
        )
        return write_bundle(
            folder,
            kind=KIND,
            weights=self.parts,
            texts={"tokenizer.json": self.tokenizer.content},
            config=to_dict(config),
            about=about,
            card=card,
        )

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks, by the names of the stages that train them."""
        return {"autoencoder": self.autoencoder, "transformer": self.transformer}  # type: ignore[dict-item]

    @property
    def image_size(self) -> int:
        """Side of its pictures in pixels."""
        return self.autoencoder.config.image_size

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.transformer.device

    def _draw(
        self,
        text: Int[Tensor, "B T"] | None,
        keys: Sequence[tuple[int, int]],
        settings: SamplingSettings,
        batch_size: int,
        on_progress: Progress | None,
    ) -> Iterator[Image.Image]:
        assert text is not None
        on_cpu, dtype = self.device.type == "cpu", WEIGHT_DTYPES[settings.precision]
        if not on_cpu and dtype == torch.int8:
            hint = "draw on a CPU with --device cpu"
            raise UsageError("precision", got="int8", expected="fp32 or bf16 on a GPU", hint=hint)
        tokens_each = self.transformer.config.image_length
        for start in range(0, len(keys), batch_size):
            part = text[start : start + batch_size]

            def advance(drawn: int, _: int, start: int = start, size: int = len(part)) -> None:
                if on_progress is not None:
                    on_progress(start * tokens_each + drawn * size, len(keys) * tokens_each, None)

            with autocast(self.device, torch.float32 if on_cpu else dtype):
                codes = sample(
                    self.transformer,
                    part,
                    keys=keys[start : start + batch_size],
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    guidance_scale=settings.guidance_scale,
                    weight_dtype=dtype,
                    progress=advance,
                )
            yield from self.decode(codes)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B h w"]) -> list[Image.Image]:
        """The pictures that codes stand for."""
        return to_pil(self.autoencoder.decode(codes.to(self.device)))


@dataclass(frozen=True, kw_only=True)
class _BundleConfig:
    """The configs in a bundle's manifest."""

    autoencoder: DiscreteVAEConfig | VQVAEConfig
    transformer: TextToImageConfig
    sampling: SamplingSettings
