"""A decoder and its upsamplers at work: from what the decoder is told to pictures.

painter = Painter(decoder, upsamplers)
counter = painter.counter(len(keys), settings, settings.of_decoder)
pictures = painter.paint(told, keys, settings, settings.of_decoder, batch_size=32, counter=counter)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from armchair.core.images import to_pil
from armchair.diffusion.guidance import Condition
from armchair.models.unet import UNet
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.pipelines.drawing import Progress
from armchair.sampling.diffusion import DiffusionSampling, Known, sample_images

_MAX_PIXELS = 1 << 18  # that pass through an upsampler at once

Told = Callable[[slice], Condition]
"""Gives what the decoder is told of some of the pictures."""

Keep = Callable[[int, int], Known]
"""For a side in pixels, and a number of pictures: what stays of each of them."""


class Painter:
    """A decoder and upsamplers.

    Args:
        decoder: The decoder.
        upsamplers: Each enlarges what the one before has drawn.
    """

    def __init__(self, decoder: UNet, upsamplers: Sequence[UNet]) -> None:
        self.decoder = decoder
        self.upsamplers = list(upsamplers)

    def counter(
        self,
        count: int,
        settings: DALLE2SamplingConfig,
        decoder: DiffusionSampling,
        tell: Progress | None = None,
        *,
        inverted: int = 0,
    ) -> Counter:
        """What counts the steps of so many pictures, and of so many inversions before them.

        Args:
            count: Pictures to paint.
            settings: How.
            decoder: How the decoder draws.
            tell: Told of the steps done, a step of a picture each.
            inverted: Given pictures whose latents are to be found.
        """
        of_decoder = len(decoder.timesteps(self.decoder.schedule))
        ways = [settings.of_upsampler(number) for number in range(len(self.upsamplers))]
        of_one = of_decoder + sum(way.num_steps for way in ways)
        return Counter(inverted * of_decoder + count * of_one, tell)

    def paint(
        self,
        told: Told,
        keys: Sequence[tuple[int, int]],
        settings: DALLE2SamplingConfig,
        decoder: DiffusionSampling,
        *,
        batch_size: int,
        counter: Counter,
        latents: Float[Tensor, "B 3 H W"] | None = None,
        keep: Keep | None = None,
    ) -> Iterator[Image.Image]:
        """Draw a picture for each key, a batch at a time.

        Args:
            told: See `Told`.
            keys: For each picture its (seed, index), which alone decide its noise.
            settings: How to draw.
            decoder: How the decoder draws.
            batch_size: Pictures decoded at once.
            counter: Counts the steps.
            latents: What the decoder begins with; noise alone if not given.
            keep: See `Keep`; all is drawn if not given.
        """
        ways = [settings.of_upsampler(number) for number in range(len(self.upsamplers))]
        for start in range(0, len(keys), batch_size):
            rows = slice(start, start + batch_size)
            of_rows = keys[rows]
            images = sample_images(
                self.decoder,
                told(rows),
                keys=of_rows,
                settings=decoder,
                latents=None if latents is None else latents[rows],
                known=keep and keep(self.decoder.config.image_size, len(of_rows)),
                on_step=counter.on_step,
            )
            for upsampler, way in zip(self.upsamplers, ways, strict=True):
                images = _enlarge(upsampler, images, of_rows, way, counter, keep)
            yield from to_pil(images)


def _enlarge(
    upsampler: UNet,
    images: Float[Tensor, "B 3 h w"],
    keys: Sequence[tuple[int, int]],
    settings: DiffusionSampling,
    counter: Counter,
    keep: Keep | None,
) -> Float[Tensor, "B 3 H W"]:
    """Enlarge pictures, as many at once as memory and caches like."""
    size, drawn = upsampler.config.image_size, []
    at_once = max(1, _MAX_PIXELS // size**2)
    for start in range(0, len(keys), at_once):
        rows = slice(start, start + at_once)
        part = sample_images(
            upsampler,
            {"low": images[rows]},
            keys=keys[rows],
            settings=settings,
            known=keep and keep(size, len(keys[rows])),
            on_step=counter.on_step,
        )
        drawn.append(part)
    return torch.cat(drawn)


class Counter:
    """Counts the steps of all pictures, for `Progress`."""

    def __init__(self, total: int, tell: Progress | None) -> None:
        self.done = 0
        self.total = total
        self.tell = tell

    def on_step(self, _: int, __: int, x_0: Tensor) -> None:
        """Count a step of a batch."""
        self.done += len(x_0)
        if self.tell is not None:
            self.tell(self.done, self.total, lambda: to_pil(x_0))
