"""DALL·E 2 as something to draw with, from captions and from pictures.

    model = armchair.load("runs/dalle2/bundle")
    pictures = model.generate("an armchair in the shape of an avocado", count=9, seed=0)
    model.variations(pictures[0], count=4)
    model.interpolate(pictures[:3], count=12)
    model.edit(pictures[0], "an armchair made of avocado", "an armchair made of cheese")
    model.redraw(pictures[0], "a kiwi clock", strength=0.6)

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from armchair.core.errors import UnknownNameError, UsageError
from armchair.core.images import to_tensor, to_unit
from armchair.data.pictures import to_rgb
from armchair.data.transforms import center_crop
from armchair.diffusion.guidance import Condition
from armchair.diffusion.interpolation import slerp
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.pipelines.dalle2_parts import DALLE2Parts
from armchair.pipelines.drawing import BATCH_SIZE, Progress, check_request
from armchair.pipelines.painter import Counter
from armchair.sampling.diffusion import DiffusionSampling, Known, invert_images, noise_images

_STRENGTH = 0.6
_STEPS_WITH_NOISE = 100  # of DDIM with noise, which at 20 draws worse than any other sampler
_LEAST_DIFFERENCE = 1e-6  # of two texts' embeddings
_LEAST_COLOUR = 48  # levels between red, green and blue; a photograph of black and white has some


class DALLE2(DALLE2Parts):
    """A whole DALL·E 2, or what is left of one without some parts; see `DALLE2Parts`.

    It draws from captions with `generate`, and from pictures that it is given with the rest.
    """

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
        counter = self.painter.counter(count, chosen, how, on_progress, inverted=1)
        embedding, latents = self._seen([picture], chosen, batch_size, counter)
        drawn = self._from_embeddings(
            embedding.expand(count, -1),
            latents.expand(count, -1, -1, -1),
            [(seed, k) for k in range(count)],
            chosen,
            how,
            batch_size,
            counter,
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
        how = replace(chosen.of_decoder, sampler="ddim")
        counter = self.painter.counter(count, chosen, how, on_progress, inverted=len(pictures))
        embeddings, latents = self._seen(pictures, chosen, batch_size, counter)
        ways = [k * (len(pictures) - 1) / (count - 1) for k in range(count)]
        drawn = self._from_embeddings(
            _along(embeddings, ways),
            _along(latents, ways),
            [(seed, 0)] * count,
            chosen,
            how,
            batch_size,
            counter,
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
            UsageError: The model has no CLIP, a text is empty, both mean the same to it, or a
                number is out of range.

        Source: section 3.3.
        """
        check_request(1, count, batch_size)
        if not 0 < theta <= 1:
            hint = "0.25 to 0.5 changes a picture and leaves it recognisable"
            raise UsageError("theta", got=theta, expected="above 0, at most 1", hint=hint)
        for field, text in (("before", before), ("after", after)):
            if not text.strip():
                hint = "say what the picture shows, and what it is to show"
                raise UsageError(field, got=text, expected="a text", hint=hint)
        chosen = self._edit_settings(**settings)
        assert self.clip is not None
        texts = self.clip.encode_texts([before, after], truncate=truncate)
        difference = texts[1:] - texts[:1]
        if not float(difference.norm()) > _LEAST_DIFFERENCE:
            hint = "say what is to change"
            raise UsageError("after", got=after, expected="another text than before", hint=hint)
        how = replace(chosen.of_decoder, sampler="ddim")
        counter = self.painter.counter(count, chosen, how, on_progress, inverted=1)
        embedding, latents = self._seen([picture], chosen, batch_size, counter)
        direction = F.normalize(difference, dim=1)
        shares = [theta * k / (count - 1) for k in range(count)] if count > 1 else [theta]
        drawn = self._from_embeddings(
            torch.cat([slerp(embedding, direction, share) for share in shares]),
            latents.expand(count, -1, -1, -1),
            [(seed, 0)] * count,
            chosen,
            how,
            batch_size,
            counter,
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
            mask: Of the picture's size. **White is painted anew, black stays**, greys are in
                between, and what is transparent counts as white.
            strength: How much noise is laid over the picture first, in (0, 1]: at 1 nothing shows
                through. 0.6 if not given, and 1 with a mask.
            count: How many pictures.
            seed: Picture k of a seed is the same whatever `count` is.
            truncate: Cut a prompt that is too long.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
            **settings: As in `generate`.

        Raises:
            UsageError: The mask has another size than the picture, has colours, or is black all
                over, or a number is out of range.
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
            counter=self.painter.counter(count, chosen, how, on_progress),
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
        if settings.get("guidance_scale") is None:
            settings["guidance_scale"] = 1.0
        return self.settings(**settings)

    @property
    def _edit_setting_names(self) -> tuple[str, ...]:
        """The settings that mean something there: no prior is asked, and "ddim" leads back."""
        left_out = ("prior_", "decoder_sampler")
        return tuple(name for name in self.setting_names if not name.startswith(left_out))

    def _seen(
        self,
        pictures: Sequence[Image.Image],
        settings: DALLE2SamplingConfig,
        batch_size: int,
        counter: Counter,
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B 3 H W"]]:
        """The embeddings of given pictures, and their latents."""
        assert self.clip is not None
        embeddings = self.clip.encode_pictures(pictures)
        size = self.decoder.config.image_size
        images = torch.cat([_square(picture, size) for picture in pictures])
        how = replace(settings.of_decoder, sampler="ddim")
        parts = zip(embeddings.split(batch_size), images.split(batch_size), strict=True)
        latents = [
            invert_images(
                self.decoder,
                self._of_embeddings(seen),
                part,
                settings=how,
                on_step=counter.on_step,
            )
            for seen, part in parts
        ]
        return embeddings, torch.cat(latents)

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
        counter: Counter,
    ) -> Iterator[Image.Image]:
        return self.painter.paint(
            lambda rows: self._of_embeddings(embeddings[rows]),
            keys,
            settings,
            decoder,
            batch_size=batch_size,
            counter=counter,
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
    """Where a mask is white, or transparent: 1 there, 0 where it is black."""
    return to_unit(_square(mask, size))[:, :1]


def _check_mask(mask: Image.Image, picture: Image.Image, size: int) -> None:
    if mask.size != picture.size:
        expected, hint = f"{picture.size}, the picture's size", "make it from a copy of the picture"
        raise UsageError("mask", got=mask.size, expected=expected, hint=hint)
    if int(np.ptp(to_rgb(mask), axis=2).max()) > _LEAST_COLOUR:
        hint = "white is painted anew, black stays, and greys are in between"
        raise UsageError("mask", got="colours", expected="black, white and greys", hint=hint)
    if not bool(_painted(mask, size).any()):
        hint = "white is painted anew, black stays; only the square in the centre counts"
        raise UsageError("mask", got="black all over", expected="some white", hint=hint)
