"""DALL·E 1 as something to draw with: a tokenizer, an autoencoder, and a transformer.

model = armchair.load("dalle1-scenes")
pictures = model.generate("an armchair in the shape of an avocado", count=9, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from armchair.core.config import to_dict
from armchair.core.errors import ConfigError, UnknownNameError, UsageError
from armchair.core.images import to_pil
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.pipelines.bundle import Bundle, load_weights, read_config, write_bundle
from armchair.sampling.tokens import sample
from armchair.text.tokenizer import Tokenizer

KIND = "dalle1"
_BATCH_SIZE = 32  # pictures drawn at once
_MAX_PICTURES = 10_000  # of one request

Progress = Callable[[int, int], None]
"""Called with (tokens drawn, tokens in all)."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are drawn.

    Attributes:
        temperature: Divides the logits; above 0. For the likeliest tokens alone, top_k = 1.
        top_k: Draw among this many likeliest image tokens; None for all.
        top_p: Draw among the likeliest image tokens that together have this probability; None for
            all.
        guidance_scale: 1 for none; above it, the caption counts for more.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float = 1.0

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


def build_autoencoder(config: DiscreteVAEConfig | VQVAEConfig) -> ImageTokenizer:
    """The image tokenizer that a configuration describes."""
    return DiscreteVAE(config) if isinstance(config, DiscreteVAEConfig) else VQVAE(config)


class DALLE1:
    """A whole DALL·E 1.

    Args:
        tokenizer: Captions to tokens.
        autoencoder: Codes to pictures and back.
        transformer: Tokens to codes.
        sampling: The settings that `generate` uses where it is given none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        autoencoder: ImageTokenizer,
        transformer: TextToImageTransformer,
        *,
        sampling: SamplingSettings | None = None,
    ) -> None:
        self.tokenizer = tokenizer
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
            weights={"autoencoder": self.autoencoder, "transformer": self.transformer},
            texts={"tokenizer.json": self.tokenizer.content},
            config=to_dict(config),
            about=about,
            card=card,
        )

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.transformer.device

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        count: int = 1,
        seed: int = 0,
        truncate: bool = False,
        batch_size: int = _BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw pictures.

        Picture k of a prompt depends on the prompt, the seed, k, and the settings; not on what else
        is drawn beside it.

        Args:
            prompts: One caption, or several.
            count: Pictures of each; with all prompts at most 10,000.
            seed: Any integer.
            truncate: Cut captions that are longer than the text context instead of refusing them.
            batch_size: Pictures drawn at once.
            on_progress: Called with (tokens drawn, tokens in all).
            **settings: Fields of `SamplingSettings` that differ from `self.sampling`.

        Returns:
            `count` pictures of the first prompt, then of the next. Each picture's `info` says how
            it was drawn.

        Raises:
            UsageError: A setting is out of range, or a prompt is empty or too long.
        """
        return list(
            self.stream(
                prompts,
                count=count,
                seed=seed,
                truncate=truncate,
                batch_size=batch_size,
                on_progress=on_progress,
                **settings,
            )
        )

    def stream(
        self,
        prompts: str | Sequence[str],
        *,
        count: int = 1,
        seed: int = 0,
        truncate: bool = False,
        batch_size: int = _BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        """Give the pictures of `generate` as they are drawn, a batch at a time.

        What is asked for is checked at once, before the first picture is taken.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        _check_request(len(texts), count, batch_size)
        chosen = self.settings(**settings)
        text = self._encode(texts, truncate).repeat_interleave(count, dim=0)
        keys = [(seed, k) for _ in texts for k in range(count)]
        pictures = self._draw(text, keys, chosen, batch_size, on_progress)
        shown = {name: str(value) for name, value in asdict(chosen).items()}

        def described() -> Iterator[Image.Image]:
            for number, picture in enumerate(pictures):
                picture.info.update(prompt=texts[number // count], seed=str(seed))
                picture.info.update(index=str(number % count), **shown)
                yield picture

        return described()

    def draw(
        self,
        prompts: Sequence[str],
        keys: Sequence[tuple[int, int]],
        *,
        settings: SamplingSettings | None = None,
        truncate: bool = False,
        batch_size: int = _BATCH_SIZE,
        on_progress: Progress | None = None,
    ) -> list[Image.Image]:
        """Draw one picture of each prompt.

        Args:
            prompts: Captions, at least one.
            keys: For each its (seed, index), which alone decide its random numbers.
            settings: How tokens are drawn; the model's own if not given.
            truncate: As in `generate`; so are the rest.
            batch_size: Pictures drawn at once.
            on_progress: Called with (tokens drawn, tokens in all).
        """
        text = self._encode(prompts, truncate)
        return list(self._draw(text, keys, settings or self.sampling, batch_size, on_progress))

    def _encode(self, prompts: Sequence[str], truncate: bool) -> Int[Tensor, "B T"]:
        return torch.from_numpy(self.tokenizer.encode_batch(prompts, truncate=truncate))

    def _draw(
        self,
        text: Int[Tensor, "B T"],
        keys: Sequence[tuple[int, int]],
        settings: SamplingSettings,
        batch_size: int,
        on_progress: Progress | None,
    ) -> Iterator[Image.Image]:
        tokens_each = self.transformer.config.image_length
        for start in range(0, len(text), batch_size):
            part = text[start : start + batch_size]

            def advance(drawn: int, _: int, start: int = start, size: int = len(part)) -> None:
                if on_progress is not None:
                    on_progress(start * tokens_each + drawn * size, len(text) * tokens_each)

            codes = sample(
                self.transformer,
                part,
                keys=keys[start : start + batch_size],
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                guidance_scale=settings.guidance_scale,
                progress=advance,
            )
            yield from self.decode(codes)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B h w"]) -> list[Image.Image]:
        """The pictures that codes stand for."""
        return to_pil(self.autoencoder.decode(codes.to(self.device)))

    def settings(self, **changes: Any) -> SamplingSettings:
        """The model's own sampling settings with those changed that are not None.

        Raises:
            UsageError: There is no such setting, or it is out of range.
        """
        known = set(asdict(self.sampling))
        for name in changes:
            if name not in known:
                raise UnknownNameError("setting", name, known)
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self.sampling, **given)


def _check_request(num_prompts: int, count: int, batch_size: int) -> None:
    most = f"{_MAX_PICTURES:,}"
    if num_prompts < 1:
        raise UsageError("prompts", got=[], expected="at least one", hint="say what to draw")
    if not 1 <= count <= _MAX_PICTURES:
        hint = "it is the number of pictures of each prompt"
        raise UsageError("count", got=count, expected=f"1 to {most}", hint=hint)
    if num_prompts * count > _MAX_PICTURES:
        raise UsageError(
            "pictures",
            got=num_prompts * count,
            expected=f"at most {most}, the prompts times count",
            hint="draw them in parts, each with a few of the prompts",
        )
    if batch_size < 1:
        hint = "it is the number of pictures drawn at once"
        raise UsageError("batch_size", got=batch_size, expected="at least 1", hint=hint)


@dataclass(frozen=True, kw_only=True)
class _BundleConfig:
    """The configs in a bundle's manifest."""

    autoencoder: DiscreteVAEConfig | VQVAEConfig
    transformer: TextToImageConfig
    sampling: SamplingSettings
