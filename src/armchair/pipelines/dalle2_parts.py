"""The parts of a DALL·E 2 as one model, in memory and as a bundle, and its drawing from captions.

What it makes of given pictures is in `armchair.pipelines.dalle2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from armchair.core.config import to_dict
from armchair.core.errors import BundleError, ConfigError
from armchair.core.finite import check_finite
from armchair.diffusion.guidance import Condition
from armchair.models.clip import CLIPModel
from armchair.models.priors.autoregressive import AutoregressivePrior
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.unet import UNet, UNetConfig
from armchair.pipelines.bundle import Bundle, load_weights, read_config, write_bundle
from armchair.pipelines.clip import CLIP
from armchair.pipelines.dalle2_config import (
    UPSAMPLERS,
    DALLE2Config,
    DALLE2SamplingConfig,
    Prior,
    build_prior,
)
from armchair.pipelines.drawing import Drawing, Progress
from armchair.pipelines.painter import Painter
from armchair.sampling.diffusion import sample_embeddings
from armchair.sampling.embedding_codes import sample_codes
from armchair.text.tokenizer import Tokenizer

KIND = "dalle2"

Model = TypeVar("Model", bound="DALLE2Parts")


class DALLE2Parts(Drawing[DALLE2SamplingConfig]):
    """A whole DALL·E 2, or what is left of one without some parts.

    Args:
        tokenizer: Captions to tokens; None if no part reads captions.
        clip: Embeds captions, and pictures that are given.
        prior: Captions to embeddings of pictures.
        decoder: Embeddings and captions to small pictures.
        upsamplers: Each enlarges what the one before has drawn.
        sampling: The settings that `generate` uses where it is given none.

    Attributes:
        clip: The CLIP with the tokenizer, to rank pictures with; None if there is none.
        config: The shapes of all parts.
        painter: The decoder and the upsamplers, which it makes pictures with.

    Raises:
        ConfigError: The parts do not fit each other, or the settings them.
    """

    work = "steps"

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        clip: CLIPModel | None,
        prior: Prior | None,
        decoder: UNet,
        upsamplers: Sequence[UNet] = (),
        *,
        sampling: DALLE2SamplingConfig | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.clip = None if clip is None or tokenizer is None else CLIP(tokenizer, clip)
        self.prior = prior
        self.decoder = decoder
        self.upsamplers = list(upsamplers)
        self.painter = Painter(decoder, self.upsamplers)
        shapes = [upsampler.config for upsampler in self.upsamplers]
        self.config = DALLE2Config(
            clip=None if clip is None else clip.config,
            prior=None if prior is None else prior.config,
            decoder=decoder.config,
            **dict(zip(UPSAMPLERS, shapes, strict=False)),
        )
        found = None if tokenizer is None else tokenizer.config.text_shape
        if found != self.config.text_shape:
            expected = f"{self.config.text_shape} tokens and positions, as the parts have"
            raise ConfigError("tokenizer", got=found, expected=expected)
        self.sampling = sampling or DALLE2SamplingConfig()
        self.config.check(self.sampling)

    @classmethod
    def load(cls: type[Model], bundle: Bundle, device: torch.device) -> Model:
        """Build the model of a checked bundle.

        Raises:
            BundleError: The bundle is of another kind, or its files do not fit together.
        """
        config = read_config(bundle, KIND, _BundleConfig)
        parts, tokenizer = config.parts, None
        if parts.text_shape is not None:
            path = bundle.path / "tokenizer.json"
            tokenizer = Tokenizer.load(path)
            if (found := tokenizer.config.text_shape) != parts.text_shape:
                expected = f"{parts.text_shape}, as the model has"
                raise BundleError(f"{path}: tokens and positions", got=found, expected=expected)

        def weights(name: str, build: Callable[[], nn.Module], num_layers: int) -> Any:
            model = load_weights(bundle, name, build, num_layers=num_layers)
            return model.to(device).eval().requires_grad_(False)

        def unet(name: str, shape: UNetConfig) -> UNet:
            num_layers = shape.num_blocks * len(shape.multipliers)
            num_layers += 0 if shape.text is None else shape.text.num_layers
            model = weights(name, lambda: UNet(shape), num_layers)
            return model.to(memory_format=torch.channels_last)

        clip = prior = None
        if (shape := parts.clip) is not None:
            clip = weights("clip", lambda: CLIPModel(shape), shape.image_layers + shape.text_layers)
        if (of_prior := parts.prior) is not None:
            num_layers = of_prior.stream.num_layers
            prior = weights("prior", lambda: build_prior(of_prior), num_layers)
        decoder = unet("decoder", parts.decoder)
        upsamplers = [unet(*each) for each in zip(UPSAMPLERS, parts.upsamplers, strict=False)]
        return cls(tokenizer, clip, prior, decoder, upsamplers, sampling=config.sampling)

    def save(self, folder: Path, *, about: dict[str, Any], card: str) -> Bundle:
        """Write the model as a bundle; see `write_bundle`."""
        tokenizer = self.tokenizer
        return write_bundle(
            folder,
            kind=KIND,
            weights=self.parts,
            texts={} if tokenizer is None else {"tokenizer.json": tokenizer.content},
            config=to_dict(_BundleConfig(parts=self.config, sampling=self.sampling)),
            about=about,
            card=card,
        )

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks that it has, by the names of the stages that train them."""
        clip = None if self.clip is None else self.clip.model
        parts = {"clip": clip, "prior": self.prior, "decoder": self.decoder}
        parts |= dict(zip(UPSAMPLERS, self.upsamplers, strict=False))
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def image_size(self) -> int:
        """Side of its pictures in pixels."""
        return self.config.image_size

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.decoder.device

    @property
    def setting_names(self) -> tuple[str, ...]:
        """The settings that mean something for this model: those of its parts."""
        return self.config.setting_names

    def settings(self, **changes: Any) -> DALLE2SamplingConfig:
        """The model's own sampling settings with those changed that are not None.

        Raises:
            UsageError: There is no such setting, or not for this model, or it is out of range.
        """
        chosen = super().settings(**changes)
        self.config.check(chosen)
        return chosen

    # Drawing from captions

    def _draw(
        self,
        text: Int[Tensor, "B T"] | None,
        keys: Sequence[tuple[int, int]],
        settings: DALLE2SamplingConfig,
        batch_size: int,
        on_progress: Progress | None,
    ) -> Iterator[Image.Image]:
        def told(rows: slice) -> Condition:
            return self._condition(None if text is None else text[rows], keys[rows], settings)

        decoder = settings.of_decoder
        counter = self.painter.counter(len(keys), settings, decoder, on_progress)
        return self.painter.paint(
            told, keys, settings, decoder, batch_size=batch_size, counter=counter
        )

    @torch.no_grad()
    def _condition(
        self,
        text: Int[Tensor, "B T"] | None,
        keys: Sequence[tuple[int, int]],
        settings: DALLE2SamplingConfig,
    ) -> Condition:
        """What the decoder is told: captions, and the embeddings that the prior draws for them."""
        condition: dict[str, Tensor] = {}
        if text is None:
            return condition
        text = text.to(self.device)
        if self.decoder.config.text is not None:
            condition["text"] = text
        if self.clip is not None:
            texts = self.clip.encode_tokens(text)
            drawn = self._draw_embeddings(text, texts, keys, settings)
            check_finite(drawn, "the prior: the embeddings that it draws")
            condition["embedding"] = drawn
        return condition

    def _draw_embeddings(
        self,
        text: Int[Tensor, "B T"],
        text_embeddings: Float[Tensor, "B E"],
        keys: Sequence[tuple[int, int]],
        settings: DALLE2SamplingConfig,
    ) -> Float[Tensor, "B E"]:
        prior = self.prior
        if isinstance(prior, DiffusionPrior):
            return sample_embeddings(
                prior,
                text,
                text_embeddings,
                keys=keys,
                settings=settings.of_prior,
                candidates=settings.prior_candidates,
            )
        if isinstance(prior, AutoregressivePrior):
            scale = settings.prior_guidance_scale
            return sample_codes(prior, text, text_embeddings, keys=keys, guidance_scale=scale)
        assert prior is not None
        return prior.embed(text, text_embeddings)


@dataclass(frozen=True, kw_only=True)
class _BundleConfig:
    """The configs in a bundle's manifest."""

    parts: DALLE2Config
    sampling: DALLE2SamplingConfig
