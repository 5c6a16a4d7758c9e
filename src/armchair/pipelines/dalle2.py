"""DALL·E 2 as something to draw with: a CLIP, a prior, a decoder, and upsamplers.

    model = armchair.load("runs/dalle2/bundle")
    pictures = model.generate("an armchair in the shape of an avocado", count=9, seed=0)
    model.variations(pictures[0], count=4)
    model.interpolate(pictures[:3], count=12)
    model.edit(pictures[0], "an armchair made of avocado", "an armchair made of cheese")
    model.redraw(pictures[0], "a kiwi clock", strength=0.6)

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.config import to_dict
from armchair.core.errors import BundleError, UnknownNameError, UsageError
from armchair.core.images import to_tensor, to_unit
from armchair.data.pictures import to_rgb
from armchair.data.transforms import center_crop
from armchair.diffusion.guidance import Condition
from armchair.diffusion.interpolation import slerp
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
from armchair.pipelines.drawing import BATCH_SIZE, Drawing, Progress, check_request
from armchair.pipelines.painter import Painter
from armchair.sampling.diffusion import (
    DiffusionSampling,
    Known,
    invert_images,
    noise_images,
    sample_embeddings,
)
from armchair.sampling.embedding_codes import sample_codes
from armchair.text.tokenizer import Tokenizer

KIND = "dalle2"
_STRENGTH = 0.6
_STEPS_WITH_NOISE = 100  # of DDIM with noise, which at 20 draws worse than any other sampler
_LEAST_DIFFERENCE = 1e-6  # of two texts' embeddings


class DALLE2(Drawing[DALLE2SamplingConfig]):
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
        self.sampling = sampling or DALLE2SamplingConfig()
        self.config.check(self.sampling)

    @classmethod
    def load(cls, bundle: Bundle, device: torch.device) -> DALLE2:
        """Build the model of a checked bundle.

        Raises:
            BundleError: The bundle is of another kind, or its files do not fit together.
        """
        config = read_config(bundle, KIND, _BundleConfig)
        parts, tokenizer = config.parts, None
        if parts.text_shape is not None:
            path = bundle.path / "tokenizer.json"
            tokenizer = Tokenizer.load(path)
            found = (tokenizer.config.vocab_size, tokenizer.config.context_length)
            if found != parts.text_shape:
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
        clip = None if self.clip is None else self.clip.model
        parts = {"clip": clip, "prior": self.prior, "decoder": self.decoder}
        parts |= dict(zip(UPSAMPLERS, self.upsamplers, strict=False))
        tokenizer = self.tokenizer
        return write_bundle(
            folder,
            kind=KIND,
            weights={name: part for name, part in parts.items() if part is not None},
            texts={} if tokenizer is None else {"tokenizer.json": tokenizer.content},
            config=to_dict(_BundleConfig(parts=self.config, sampling=self.sampling)),
            about=about,
            card=card,
        )

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

        return self.painter.paint(
            told, keys, settings, settings.of_decoder, batch_size=batch_size, tell=on_progress
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
            texts = self.clip.model.encode_texts(text)
            condition["embedding"] = self._draw_embeddings(text, texts, keys, settings)
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

    # Starting from pictures

    def variations(
        self,
        picture: Image.Image,
        *,
        count: int = 9,
        seed: int = 0,
        eta: float = 1.0,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw pictures that share with a given one what its embedding holds.

        Args:
            picture: Of any mode and size; of it the square in its centre.
            count: How many.
            seed: Picture k of a seed is the same whatever `count` is.
            eta: How far they may go. At 0 all are the picture itself, as well as the model knows
                it; at 1 the details are drawn anew.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
            **settings: As in `generate`. The guidance scale is 1 if not given: only a decoder
                without guidance finds its way back well. With `eta` the decoder takes 100 steps if
                `decoder_steps` is not given: DDIM's noise wants many. The prior's settings and
                `decoder_sampler` mean nothing here and are refused.

        Raises:
            UsageError: The model has no CLIP, or a number is out of range.
            DataError: The picture's pixels are not whole numbers.

        Source: section 3.1.
        """
        check_request(1, count, batch_size)
        if eta and settings.get("decoder_steps") is None:
            most = self.decoder.process.num_timesteps
            steps = max(self.sampling.decoder_steps, min(_STEPS_WITH_NOISE, most))
            settings["decoder_steps"] = steps
        chosen = self._edit_settings(**settings)
        how = replace(chosen.of_decoder, sampler="ddim", eta=eta)
        embedding, latents = self._seen([picture], chosen)
        drawn = self._from_embeddings(
            embedding.expand(count, -1),
            latents.expand(count, -1, -1, -1),
            [(seed, k) for k in range(count)],
            chosen,
            how,
            batch_size,
            on_progress,
        )
        about = [{"seed": str(seed), "index": str(k), "eta": str(eta)} for k in range(count)]
        return list(self._described(drawn, about, chosen, self._edit_setting_names))

    def interpolate(
        self,
        pictures: Sequence[Image.Image],
        *,
        count: int = 9,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw the way from one picture to the next, at an even pace.

        Embeddings and latents both go along circles.

        Args:
            pictures: Two or more; see `variations`, as for the rest.
            count: Pictures of the whole way, both ends among them; at least 2.
            seed: Of the upsamplers' noise, the same for all pictures.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
            **settings: See `variations`.

        Raises:
            UsageError: The model has no CLIP, there is one picture alone, or a number is out of
                range.

        Source: section 3.2.
        """
        check_request(1, count, batch_size)
        if len(pictures) < 2:
            hint = "give the pictures to go from and to"
            raise UsageError("pictures", got=len(pictures), expected="at least two", hint=hint)
        if count < 2:
            hint = "the first picture and the last are among them"
            raise UsageError("count", got=count, expected="at least 2", hint=hint)
        chosen = self._edit_settings(**settings)
        embeddings, latents = self._seen(pictures, chosen)
        ways = [k * (len(pictures) - 1) / (count - 1) for k in range(count)]
        drawn = self._from_embeddings(
            _along(embeddings, ways),
            _along(latents, ways),
            [(seed, 0)] * count,
            chosen,
            replace(chosen.of_decoder, sampler="ddim"),
            batch_size,
            on_progress,
        )
        about = [{"seed": str(seed), "way": f"{way:.4f}"} for way in ways]
        return list(self._described(drawn, about, chosen, self._edit_setting_names))

    def edit(
        self,
        picture: Image.Image,
        before: str,
        after: str,
        *,
        theta: float = 0.4,
        count: int = 5,
        seed: int = 0,
        truncate: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Move a picture by the difference of two texts, step by step.

        Args:
            picture: See `variations`, as for the rest.
            before: What it shows.
            after: What it is to show.
            theta: How far, in (0, 1]: the share of the way from the picture's embedding to the
                direction of the difference. The paper goes to 0.25 or 0.5.
            count: Pictures on the way, from the picture itself on; 1 for the last alone.
            seed: Of the upsamplers' noise, the same for all pictures.
            truncate: Cut texts that are too long.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
            **settings: See `variations`.

        Raises:
            UsageError: The model has no CLIP, the texts mean the same to it, or a number is out of
                range.

        Source: section 3.3.
        """
        check_request(1, count, batch_size)
        if not 0 < theta <= 1:
            hint = "0.25 to 0.5 changes a picture and leaves it recognisable"
            raise UsageError("theta", got=theta, expected="above 0, at most 1", hint=hint)
        chosen = self._edit_settings(**settings)
        assert self.clip is not None
        texts = self.clip.encode_texts([before, after], truncate=truncate)
        difference = texts[1:] - texts[:1]
        if not float(difference.norm()) > _LEAST_DIFFERENCE:
            hint = "say what is to change"
            raise UsageError("after", got=after, expected="another text than before", hint=hint)
        embedding, latents = self._seen([picture], chosen)
        direction = F.normalize(difference, dim=1)
        shares = [theta * k / (count - 1) for k in range(count)] if count > 1 else [theta]
        drawn = self._from_embeddings(
            torch.cat([slerp(embedding, direction, share) for share in shares]),
            latents.expand(count, -1, -1, -1),
            [(seed, 0)] * count,
            chosen,
            replace(chosen.of_decoder, sampler="ddim"),
            batch_size,
            on_progress,
        )
        of_all = {"before": before, "after": after, "seed": str(seed)}
        about = [{**of_all, "theta": f"{share:.4f}"} for share in shares]
        return list(self._described(drawn, about, chosen, self._edit_setting_names))

    def redraw(
        self,
        picture: Image.Image,
        prompt: str | None = None,
        *,
        mask: Image.Image | None = None,
        strength: float | None = None,
        count: int = 1,
        seed: int = 0,
        truncate: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw a prompt over a picture: over all of it, its forms kept, or over a part, anew.

        Args:
            picture: Of any mode and size; of it the square in its centre.
            prompt: What the whole result is to show; None for a model that reads no captions.
            mask: Of the picture's size. **White is painted anew, black stays.**
            strength: How much noise is laid over the picture first, in (0, 1]: at 1 nothing shows
                through. 0.6 if not given, and 1 with a mask.
            count: How many pictures.
            seed: Picture k of a seed is the same whatever `count` is.
            truncate: Cut a prompt that is too long.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
            **settings: As in `generate`.

        Raises:
            UsageError: The mask has another size than the picture or is black all over, or a
                number is out of range.
            DataError: The picture's pixels are not whole numbers.
        """
        texts = self._texts(() if prompt is None else prompt)
        check_request(len(texts), count, batch_size)
        if mask is not None:
            _check_mask(mask, picture, self.image_size)
        if strength is None:
            strength = _STRENGTH if mask is None else 1.0
        chosen = self.settings(**settings)
        how = replace(chosen.of_decoder, strength=strength)
        text, keys = self._encode(texts, truncate), [(seed, k) for k in range(count)]

        def told(rows: slice) -> Condition:
            of_rows = None if text is None else text.expand(len(keys[rows]), -1)
            return self._condition(of_rows, keys[rows], chosen)

        def keep(size: int, rows: int) -> Known:
            assert mask is not None
            parts = _square(picture, size), _painted(mask, size)
            return Known(*(part.expand(rows, -1, -1, -1) for part in parts))

        latents = None
        if strength < 1:
            image = _square(picture, self.decoder.config.image_size).expand(count, -1, -1, -1)
            latents = noise_images(self.decoder, image, keys=keys, settings=how)
        drawn = self.painter.paint(
            told,
            keys,
            chosen,
            how,
            batch_size=batch_size,
            tell=on_progress,
            latents=latents,
            keep=None if mask is None else keep,
        )
        of_all = {**({"prompt": prompt} if prompt else {}), "seed": str(seed)}
        about = [{**of_all, "index": str(k), "strength": str(strength)} for k in range(count)]
        return list(self._described(drawn, about, chosen))

    def _edit_settings(self, **settings: Any) -> DALLE2SamplingConfig:
        """The settings for drawing from embeddings of given pictures."""
        if self.clip is None:
            hint = "`redraw` starts from a picture without one"
            raise UsageError("the model's CLIP", got=None, expected="one, to see with", hint=hint)
        for name in settings:
            if name not in self._edit_setting_names:
                raise UnknownNameError("setting of an edit", name, self._edit_setting_names)
        return self.settings(**{"guidance_scale": 1.0, **settings})

    @property
    def _edit_setting_names(self) -> tuple[str, ...]:
        """The settings that mean something there: no prior is asked, and "ddim" leads back."""
        left_out = ("prior_", "decoder_sampler")
        return tuple(name for name in self.setting_names if not name.startswith(left_out))

    def _seen(
        self, pictures: Sequence[Image.Image], settings: DALLE2SamplingConfig
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B 3 H W"]]:
        """The embeddings of given pictures, and their latents."""
        assert self.clip is not None
        embeddings = self.clip.encode_pictures(pictures)
        size = self.decoder.config.image_size
        images = torch.cat([_square(picture, size) for picture in pictures])
        how = replace(settings.of_decoder, sampler="ddim")
        told = self._of_embeddings(embeddings)
        return embeddings, invert_images(self.decoder, told, images, settings=how)

    def _of_embeddings(self, embeddings: Float[Tensor, "B E"]) -> Condition:
        """What the decoder is told of embeddings without captions."""
        condition = {"embedding": embeddings}
        if self.decoder.config.text is not None:
            condition["text"] = self.decoder.text.null_text(len(embeddings)).to(self.device)
        return condition

    def _from_embeddings(
        self,
        embeddings: Float[Tensor, "B E"],
        latents: Float[Tensor, "B 3 H W"],
        keys: Sequence[tuple[int, int]],
        settings: DALLE2SamplingConfig,
        decoder: DiffusionSampling,
        batch_size: int,
        on_progress: Progress | None,
    ) -> Iterator[Image.Image]:
        return self.painter.paint(
            lambda rows: self._of_embeddings(embeddings[rows]),
            keys,
            settings,
            decoder,
            batch_size=batch_size,
            tell=on_progress,
            latents=latents,
        )


def _along(values: Float[Tensor, "N *S"], ways: Sequence[float]) -> Float[Tensor, "M *S"]:
    """Points between values: at way 1.5, halfway from value 1 to value 2."""
    starts = [min(int(way), len(values) - 2) for way in ways]
    points = [
        slerp(values[start : start + 1], values[start + 1 : start + 2], min(way - start, 1.0))
        for start, way in zip(starts, ways, strict=True)
    ]
    return torch.cat(points)


def _square(picture: Image.Image, size: int) -> Float[Tensor, "1 3 {size} {size}"]:
    """The square in a picture's centre, in [-1, 1]."""
    return to_tensor(center_crop(to_rgb(picture), size))[None]


def _painted(mask: Image.Image, size: int) -> Float[Tensor, "1 1 {size} {size}"]:
    """Where a mask is white: 1 there, 0 where it is black."""
    return to_unit(_square(mask, size))[:, :1]


def _check_mask(mask: Image.Image, picture: Image.Image, size: int) -> None:
    if mask.size != picture.size:
        raise UsageError("mask", got=mask.size, expected=f"{picture.size}, the picture's size")
    if not bool(_painted(mask, size).any()):
        hint = "white is painted anew, black stays; only the square in the centre counts"
        raise UsageError("mask", got="black all over", expected="some white", hint=hint)


@dataclass(frozen=True, kw_only=True)
class _BundleConfig:
    """The configs in a bundle's manifest."""

    parts: DALLE2Config
    sampling: DALLE2SamplingConfig
