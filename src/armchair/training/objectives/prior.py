"""The losses of the three priors: a picture's CLIP embedding from its caption.

    diffusion        mean squared error about the embedding in a noised one
    autoregressive   nats a code
    one step         mean squared error, and telling the captions of the batch apart

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.2; "ECLIPSE: A Resource-Efficient Text-to-Image Prior for Image Generations" (arXiv
2312.04655), section 3, for the last.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from armchair.core.errors import ConfigError
from armchair.core.images import contact_sheet, to_pil
from armchair.core.random import torch_generator
from armchair.diffusion.guidance import Condition
from armchair.diffusion.losses import simple_loss
from armchair.diffusion.process import add_noise, draw_timesteps, target
from armchair.models.clip import cosines, recall_at
from armchair.models.priors.autoregressive import AutoregressivePrior
from armchair.models.priors.diffusion import DiffusionPrior
from armchair.models.priors.one_step import OneStepPrior
from armchair.sampling.diffusion import DiffusionSampling, sample_embeddings
from armchair.sampling.embedding_codes import sample_codes
from armchair.training.objective import Batch, Loss, Objective
from armchair.training.objectives.diffusion import where_dropped

Prior = TypeVar("Prior", DiffusionPrior, AutoregressivePrior, OneStepPrior)

_BATCH_SIZE = 64  # of validation pairs
_PREVIEW_ROWS, _PREVIEW_COLUMNS = 6, 6


@dataclass(frozen=True, kw_only=True)
class PriorLossConfig:
    """The loss of a prior that can be guided.

    Attributes:
        condition_dropout: Share of captions, embedding included, that are replaced by nothing.
    """

    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.condition_dropout < 1:
            raise ConfigError("condition_dropout", got=self.condition_dropout, expected="in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class OneStepPriorLossConfig:
    """The loss of a one-step prior.

    Attributes:
        contrastive_weight: Weight of telling the batch's captions apart by the embedding.
        temperature: What cosines are divided by there.
    """

    contrastive_weight: float = 0.2
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.contrastive_weight < 0:
            raise ConfigError(
                "contrastive_weight", got=self.contrastive_weight, expected="at least 0"
            )
        if self.temperature <= 0:
            raise ConfigError("temperature", got=self.temperature, expected="above 0")


class PriorObjective(Objective[Prior]):
    """Trains a prior on batches of "text", "text_embedding" and "image_embedding".

    Args:
        model: The prior.
        validation: The like of a batch, never trained on, and its "images" in [-1, 1].
    """

    def __init__(self, model: Prior, validation: Mapping[str, Tensor]) -> None:
        self.model = model
        self.validation = validation

    @abstractmethod
    def draw(
        self, text: Int64[Tensor, "B T"], text_embeddings: Float[Tensor, "B E"], first: int
    ) -> Float[Tensor, "B E"]:
        """Embeddings of pictures for captions, of which the first has the number `first`."""

    def validate(self, *, progress: float) -> dict[str, float]:
        """The loss, and how drawn embeddings compare with the pictures' own.

        Returns:
            "loss", with conditions dropped as in training; "cosine", the mean over drawn
            embeddings and their pictures'; "picture_recall_1", the share of drawn embeddings that
            are nearer to their own picture than to any other.
        """
        similarity = cosines(self._draw(len(self.validation["text"])), self._own())
        return {
            "loss": self._validation_loss(progress),
            "cosine": float(similarity.diagonal().mean()),
            "picture_recall_1": recall_at(1, similarity),
        }

    def _validation_loss(self, progress: float) -> float:
        """Of parts of the validation data, each with conditions dropped as in training."""
        total, count = 0.0, len(self.validation["text"])
        for start in range(0, count, _BATCH_SIZE):
            batch = self._part(slice(start, start + _BATCH_SIZE))
            generator = torch_generator("validation", start, device=self.model.device)
            loss = self.loss(batch, progress=progress, generator=generator)
            total += float(loss.total) * len(batch["text"])
        return total / count

    def preview(self) -> Image.Image:
        """A row for each of some captions: its own picture, then those nearest to what is drawn."""
        rows = min(_PREVIEW_ROWS, len(self.validation["text"]))
        similarity = cosines(self._draw(rows), self._own())
        best = similarity.argsort(dim=1, descending=True).cpu()
        first = torch.arange(len(best))[:, None]
        shown = torch.cat([first, best[:, : _PREVIEW_COLUMNS - 1]], dim=1)
        images = self.validation["images"][shown.flatten()]
        return contact_sheet(to_pil(images), columns=shown.shape[1])

    def _draw(self, count: int) -> Float[Tensor, "N E"]:
        """Embeddings drawn for the first captions."""
        drawn = []
        for start in range(0, count, _BATCH_SIZE):
            batch = self._part(slice(start, min(start + _BATCH_SIZE, count)))
            drawn.append(self.draw(batch["text"], batch["text_embedding"], start))
        return torch.cat(drawn)

    def _own(self) -> Float[Tensor, "N E"]:
        """Embeddings of all pictures."""
        return self.validation["image_embedding"].to(self.model.device)

    def _part(self, rows: slice) -> dict[str, Tensor]:
        names = ("text", "text_embedding", "image_embedding")
        return {name: self.validation[name][rows].to(self.model.device) for name in names}


class DiffusionPriorObjective(PriorObjective[DiffusionPrior]):
    """Trains a `DiffusionPrior`.

    Args:
        model: The prior, its scale fitted.
        config: The loss.
        validation: See `PriorObjective`.
        sampling: How validation draws.
    """

    def __init__(
        self,
        model: DiffusionPrior,
        config: PriorLossConfig,
        *,
        validation: Mapping[str, Tensor],
        sampling: DiffusionSampling,
    ) -> None:
        super().__init__(model, validation)
        self.config = config
        self.sampling = sampling

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The mean squared error of a batch, in the units of the prior's scale."""
        model, process = self.model, self.model.process
        condition = _dropped(model, batch, self.config.condition_dropout, generator)
        x_0 = model.scale(batch["image_embedding"])
        num_timesteps, device = model.schedule.num_timesteps, x_0.device
        t = draw_timesteps(num_timesteps, len(x_0), generator, device)
        noise = torch.randn(x_0.shape, generator=generator, device=device)
        x_t = add_noise(model.schedule, x_0, t, noise)
        output = model(x_t, t, model.encode(condition))
        wanted = target(model.schedule, x_0, t, noise, process.parameterisation)
        return Loss(simple_loss(output, wanted).mean())

    def draw(
        self, text: Int64[Tensor, "B T"], text_embeddings: Float[Tensor, "B E"], first: int
    ) -> Float[Tensor, "B E"]:
        """The better of two for each caption."""
        return sample_embeddings(
            self.model, text, text_embeddings, keys=_keys(text, first), settings=self.sampling
        )


class AutoregressivePriorObjective(PriorObjective[AutoregressivePrior]):
    """Trains an `AutoregressivePrior`.

    Args:
        model: The prior, its space fitted.
        config: The loss.
        validation: See `PriorObjective`.
    """

    def __init__(
        self,
        model: AutoregressivePrior,
        config: PriorLossConfig,
        *,
        validation: Mapping[str, Tensor],
    ) -> None:
        super().__init__(model, validation)
        self.config = config

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The cross-entropy of a batch, in nats a code."""
        model, images = self.model, batch["image_embedding"]
        condition = _dropped(model, batch, self.config.condition_dropout, generator)
        codes = model.space.encode(images)
        dots = model.space.encode_dots(images, batch["text_embedding"])
        logits = model(condition["text"], condition["text_embedding"], dots, codes)
        return Loss(F.cross_entropy(logits.flatten(0, 1), codes.flatten()))

    def draw(
        self, text: Int64[Tensor, "B T"], text_embeddings: Float[Tensor, "B E"], first: int
    ) -> Float[Tensor, "B E"]:
        """One for each caption."""
        return sample_codes(self.model, text, text_embeddings, keys=_keys(text, first))


class OneStepPriorObjective(PriorObjective[OneStepPrior]):
    """Trains a `OneStepPrior`.

    Args:
        model: The prior, its scale fitted.
        config: The loss.
        validation: See `PriorObjective`.
    """

    def __init__(
        self,
        model: OneStepPrior,
        config: OneStepPriorLossConfig,
        *,
        validation: Mapping[str, Tensor],
    ) -> None:
        super().__init__(model, validation)
        self.config = config

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The mean squared error of a batch, and 0.2 times the nats for telling its captions."""
        return self._loss(self.model(batch["text"], batch["text_embedding"]), batch)

    def _loss(self, scaled: Float[Tensor, "B E"], batch: Batch) -> Loss:
        error = F.mse_loss(scaled, self.model.scale(batch["image_embedding"]))
        fit = cosines(self.model.scale.inverse(scaled), batch["text_embedding"])
        own = torch.arange(len(fit), device=fit.device)
        contrast = F.cross_entropy(fit / self.config.temperature, own)
        total = error + self.config.contrastive_weight * contrast
        return Loss(total, {"error": error.detach(), "contrast": contrast.detach()})

    def _validation_loss(self, progress: float) -> float:
        """Of all validation data at once, as each caption is told from all others."""
        count = len(self.validation["text"])
        parts = [self._part(slice(n, n + _BATCH_SIZE)) for n in range(0, count, _BATCH_SIZE)]
        scaled = torch.cat([self.model(part["text"], part["text_embedding"]) for part in parts])
        return float(self._loss(scaled, self._part(slice(count))).total)

    def draw(
        self, text: Int64[Tensor, "B T"], text_embeddings: Float[Tensor, "B E"], first: int
    ) -> Float[Tensor, "B E"]:
        """The only one for each caption."""
        return self.model.embed(text, text_embeddings)


def _keys(text: Tensor, first: int) -> list[tuple[int, int]]:
    return [(0, first + row) for row in range(len(text))]


def _dropped(
    model: DiffusionPrior | AutoregressivePrior,
    batch: Batch,
    share: float,
    generator: torch.Generator,
) -> Condition:
    """The batch's captions, some of them, embedding included, replaced by nothing."""
    condition = {name: batch[name] for name in ("text", "text_embedding")}
    null, device = model.null(condition), condition["text"].device
    chance = torch.rand(len(condition["text"]), generator=generator, device=device)
    return {name: where_dropped(chance < share, null[name], condition[name]) for name in condition}
