"""The loss of a U-Net: how far off it is about the noise in noised pictures.

Conditions are dropped at random, so that drawing can be guided. What an upsampler is to enlarge is
made from its pictures, or from crops of them, smaller and slightly damaged.

Source: "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239), equation 14; "Improved
Denoising Diffusion Probabilistic Models" (arXiv 2102.09672), section 3.1, where the variance is
learned; "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.images import contact_sheet, to_pil
from armchair.core.random import torch_generator
from armchair.core.schedules import Schedule
from armchair.diffusion.guidance import Condition
from armchair.diffusion.losses import BOUND_WEIGHT, hybrid_loss, prior_term, simple_loss
from armchair.diffusion.process import add_noise, draw_timesteps, target
from armchair.diffusion.samplers import keyed_noise
from armchair.models.unet import UNet
from armchair.nn.resampling import resize
from armchair.sampling.diffusion import DiffusionSampling, sample_images
from armchair.training.degradation import Degradation, degrade
from armchair.training.objective import Batch, Loss, Objective

_NUM_PREVIEWS = 8
_LEAST_DEGRADED = 2  # pixels of a side, which a blur mirrors at


@dataclass(frozen=True, kw_only=True)
class DiffusionLossConfig:
    """The loss; the defaults are those of DALL·E 2's decoder.

    Attributes:
        text_dropout: Share of captions replaced by padding.
        embedding_dropout: Share of embeddings replaced by zeros, whatever becomes of the captions.
        crop_size: Side of the random crops that the pictures of batches are, in pixels; None for
            whole pictures. A quarter of the side for the paper's upsamplers.
        degradation: Damage to the pictures that are to be enlarged; None for none.
        logit_normal: Share of the timesteps that are logit-normal, over the run; the rest are
            uniform. See `draw_timesteps`. What they neglect is to be made up for before the end.
    """

    text_dropout: float = 0.5
    embedding_dropout: float = 0.1
    crop_size: int | None = None
    degradation: Degradation | None = None
    logit_normal: Schedule = field(default_factory=lambda: Schedule.of(0.0))

    def __post_init__(self) -> None:
        for name in ("text_dropout", "embedding_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, got=getattr(self, name), expected="in [0, 1)")
        if self.crop_size is not None and self.crop_size < 1:
            raise ConfigError("crop_size", got=self.crop_size, expected="at least 1")
        shares = [knot.value for knot in self.logit_normal.knots]
        if any(not 0 <= share <= 1 for share in shares):
            raise ConfigError("logit_normal", got=shares, expected="each in [0, 1]")


class DiffusionObjective(Objective[UNet]):
    """Trains a `UNet` on batches of "images" and what the model is told of them.

    A picture to enlarge is made from the picture itself and need not be in the batch.

    Args:
        model: The model.
        config: The loss.
        validation: The like of a batch, never trained on.
        sampling: How previews are drawn.

    Raises:
        ConfigError: The crops do not fit the model, or the timesteps its learned variance.
    """

    def __init__(
        self,
        model: UNet,
        config: DiffusionLossConfig,
        *,
        validation: Mapping[str, Tensor],
        sampling: DiffusionSampling,
    ) -> None:
        factor = model.config.image_size // (model.config.low_size or model.config.image_size)
        multiple = math.lcm(model.config.side_multiple, factor)
        if config.crop_size is not None and config.crop_size % multiple:
            expected = f"a multiple of {multiple}, for this model"
            raise ConfigError("crop_size", got=config.crop_size, expected=expected)
        side = model.config.image_size
        if config.crop_size is not None and config.crop_size > side:
            expected = f"at most {side}, the pictures' side"
            raise ConfigError("crop_size", got=config.crop_size, expected=expected)
        low = (config.crop_size or side) // factor
        if config.degradation is not None and low < _LEAST_DEGRADED:
            expected = f"at least {_LEAST_DEGRADED * factor}, for pictures to damage"
            raise ConfigError("crop_size", got=config.crop_size, expected=expected)
        shares = [knot.value for knot in config.logit_normal.knots]
        if any(shares) and model.process.learned_variance:
            expected = "0, as a variance is learned from all timesteps alike"
            raise ConfigError("logit_normal", got=shares, expected=expected)
        self.model = model
        self.config = config
        self.validation = validation
        self.sampling = sampling

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The mean squared error of a batch, and 0.001 of the bound where variance is learned."""
        images = batch["images"]
        condition = self._drop(self._condition(batch, images, generator), generator)
        num_timesteps, device = self.model.schedule.num_timesteps, images.device
        share = self.config.logit_normal(progress)
        t = draw_timesteps(num_timesteps, len(images), generator, device, logit_normal=share)
        noise = torch.randn(images.shape, generator=generator, device=device)
        terms = self._terms(images, condition, t, noise)
        total = torch.stack(list(terms.values())).sum(dim=0).mean()
        return Loss(total, {name: term.detach().mean() for name, term in terms.items()})

    def _condition(
        self, batch: Mapping[str, Tensor], images: Tensor, generator: torch.Generator
    ) -> Condition:
        """What the model is told of the pictures."""
        config = self.model.config
        names = (name for name in config.condition_names if name != "low")
        condition = {name: batch[name] for name in names}
        if config.low_size is not None:
            low = resize(images, images.shape[-1] * config.low_size // config.image_size)
            kind = self.config.degradation
            condition["low"] = low if kind is None else degrade(low, kind, generator)
        return condition

    def _drop(self, condition: Condition, generator: torch.Generator) -> Condition:
        shares = {"text": self.config.text_dropout, "embedding": self.config.embedding_dropout}
        null, kept = self.model.null(condition), dict(condition)
        for name, share in shares.items():  # always in this order, as each draws
            if name in condition:
                value = condition[name]
                chance = torch.rand(len(value), generator=generator, device=value.device)
                kept[name] = where_dropped(chance < share, null[name], value)
        return kept

    def _terms(
        self, images: Tensor, condition: Condition, t: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """Each example's losses, named."""
        model, process = self.model, self.model.process
        x_t = add_noise(model.schedule, images, t, noise)
        output = model(x_t, t, model.encode(condition))
        given = (model.schedule, images, t, noise)
        if not process.learned_variance:
            wanted = target(*given, process.parameterisation)
            return {"simple": simple_loss(output, wanted)}
        simple, bound = hybrid_loss(*given, output, process.parameterisation)
        return {"simple": simple, "bound": bound}

    def validate(self, *, progress: float, batch_size: int = 32) -> dict[str, float]:
        """The loss at timesteps spread over the validation pictures.

        The bound is a sum over all timesteps, and the first of them, whose term is by far the
        largest, is taken for every picture; of the others each picture has one, by lot among its
        share of them, so that the mean is that of the whole sum.

        Returns:
            "simple", the mean squared error; with a learned variance "bits", a pixel's value's
            share of the variational bound on the picture's likelihood.
        """
        found: dict[str, list[Tensor]] = {"simple": []}
        count, others = len(self.validation["images"]), self.model.schedule.num_timesteps - 1
        place = torch.rand(count, generator=torch_generator("timesteps", count))
        timesteps = 1 + ((torch.arange(count) + place) * others / count).long()
        timesteps = timesteps.clamp(max=others)
        for start in range(0, count, batch_size):
            numbers = range(start, min(start + batch_size, count))
            batch = self._part(slice(numbers.start, numbers.stop))
            images = batch["images"]
            generator = torch_generator("degradation", start, device=images.device)
            condition = self._condition(batch, images, generator)
            t = timesteps[numbers.start : numbers.stop].to(images.device)
            keys = [(0, number) for number in numbers]
            noise = keyed_noise(keys, images.shape[1:], purpose="validation")(0).to(images)
            terms = self._terms(images, condition, t, noise)
            found["simple"].append(terms["simple"])
            if "bound" in terms:
                first = self._terms(images, condition, torch.zeros_like(t), noise)["bound"]
                bits = (first + others * terms["bound"]) / (BOUND_WEIGHT * (1 + others))
                bits = bits + prior_term(self.model.schedule, images)
                found.setdefault("bits", []).append(bits)
        return {name: float(torch.cat(terms).mean()) for name, terms in found.items()}

    def preview(self) -> Image.Image:
        """Validation pictures above what the model draws; between them what it enlarges."""
        batch = self._part(slice(0, _NUM_PREVIEWS))
        images, size = batch["images"], batch["images"].shape[-1]
        generator = torch_generator("degradation", 0, device=images.device)
        condition = self._condition(batch, images, generator)
        keys = [(0, number) for number in range(len(images))]
        drawn = sample_images(self.model, condition, keys=keys, settings=self.sampling)
        rows = [images, drawn]
        if "low" in condition:
            rows.insert(1, resize(condition["low"], size))
        return contact_sheet(to_pil(torch.cat(rows)), columns=len(images))

    def _part(self, rows: slice) -> dict[str, Tensor]:
        return {name: value[rows].to(self.model.device) for name, value in self.validation.items()}


def where_dropped(dropped: Bool[Tensor, " B"], null: Tensor, value: Tensor) -> Tensor:
    """The null's rows where dropped, the value's elsewhere."""
    return torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null, value)
