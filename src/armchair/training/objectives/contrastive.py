"""CLIP's objective: which caption belongs to which picture, among all of the batch.

A batch may be larger than memory: its pairs then pass through the model in chunks that keep only
their embeddings, and each chunk passes through once more when its gradient is due. That is gradient
caching, and its gradients are those of the whole batch at once. Parts of a batch that are
accumulated (`TrainingConfig.accumulation`) are another thing: each would know only its own pairs.

Source: "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020,
section 2; Yuksekgonul et al., "When and Why Vision-Language Models Behave like Bags-Of-Words",
arXiv 2210.01936, section 4, for captions that are nearly true; Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup", arXiv 2101.06983.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from armchair.core.errors import ConfigError
from armchair.core.images import contact_sheet, to_pil
from armchair.models.clip import (
    CLIPModel,
    Gather,
    alone,
    contrastive_loss,
    cosines,
    embed_images,
    embed_texts,
    recalls,
)
from armchair.training.objective import Batch, Loss, Objective

_MAX_NEAR_MISSES = 32  # each is a caption to draw and to encode, for each picture
_PREVIEW_ROWS, _PREVIEW_COLUMNS = 6, 6


@dataclass(frozen=True, kw_only=True)
class ContrastiveLossConfig:
    """How the loss is computed.

    Attributes:
        chunk_size: Pairs that pass through the model at once, with gradient caching; None for the
            whole batch.
        near_misses: Captions that are nearly true of each picture, among which it has to find its
            own too, if the data set has them, as scenes do; 0 in the paper.
    """

    chunk_size: int | None = None
    near_misses: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.near_misses <= _MAX_NEAR_MISSES:
            expected = f"0 to {_MAX_NEAR_MISSES}"
            raise ConfigError("near_misses", got=self.near_misses, expected=expected)
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ConfigError("chunk_size", got=self.chunk_size, expected="at least 1")


class ContrastiveObjective(Objective[CLIPModel]):
    """Trains a `CLIPModel` on batches of "images" and "text", and perhaps "near_misses".

    Args:
        model: The model.
        config: How its loss is computed.
        images: Validation pictures in [-1, 1].
        text: Their captions' tokens.
        gather: Brings the embeddings of all ranks together; their gradients are to be averaged.
    """

    def __init__(
        self,
        model: CLIPModel,
        config: ContrastiveLossConfig,
        *,
        images: Float[Tensor, "N 3 H W"],
        text: Int64[Tensor, "N T"],
        gather: Gather = alone,
    ) -> None:
        self.model = model
        self.config = config
        self.images = images
        self.text = text
        self.gather = gather

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The symmetric cross-entropy of a batch, in nats."""
        images = self._encode(self.model.encode_images, batch["images"])
        texts = self._encode(self.model.encode_texts, batch["text"])
        scale, false = self.model.scale, None
        if "near_misses" in batch:
            false = self._encode(self.model.encode_texts, batch["near_misses"].flatten(0, 1))
        total = contrastive_loss(images, texts, scale, false=false, gather=self.gather)
        return Loss(total, {"scale": scale.detach()})

    def _encode(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        size = self.config.chunk_size
        if size is None:
            return encode(inputs)
        chunks = [checkpoint(encode, chunk, use_reentrant=False) for chunk in inputs.split(size)]
        return torch.cat(chunks)

    def after_update(self, generator: torch.Generator) -> dict[str, float]:
        """Bring the scale back to its limit."""
        self.model.limit_scale()
        return {}

    def validate(self, *, progress: float) -> dict[str, float]:
        """Recall both ways; see `recalls`.

        Two validation pictures may show the same things, so 1 may be out of reach.
        """
        return recalls(cosines(*self._embed()))

    def preview(self) -> Image.Image:
        """A row for each of some captions: its own picture, then those it fits best."""
        images, texts = self._embed()
        best = cosines(texts[:_PREVIEW_ROWS], images).argsort(dim=1, descending=True).cpu()
        own = torch.arange(len(best))[:, None]
        shown = torch.cat([own, best[:, : _PREVIEW_COLUMNS - 1]], dim=1)
        return contact_sheet(to_pil(self.images[shown.flatten()]), columns=shown.shape[1])

    def _embed(self) -> tuple[Tensor, Tensor]:
        """Of the validation pictures and their captions."""
        return embed_images(self.model, self.images), embed_texts(self.model, self.text)
