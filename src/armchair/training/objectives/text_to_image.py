"""The transformer's loss: cross-entropies of text and image tokens, 1/8 and 7/8.

Source: "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.images import contact_sheet, to_pil
from armchair.models.sequence.text_to_image import TextToImageTransformer, weighted_loss
from armchair.sampling.tokens import sample
from armchair.training.objective import Batch, Loss, Objective

_NUM_PREVIEWS = 12


@dataclass(frozen=True, kw_only=True)
class TextToImageLossConfig:
    """The loss; the defaults are the paper's, but for the dropped captions.

    Attributes:
        text_weight: Weight of the text's cross-entropy.
        image_weight: Weight of the image's cross-entropy.
        condition_dropout: Share of captions replaced by padding, so that sampling can be guided;
            0 in the paper.
    """

    text_weight: float = 1 / 8
    image_weight: float = 7 / 8
    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.condition_dropout < 1:
            raise ConfigError("condition_dropout", got=self.condition_dropout, expected="in [0, 1)")
        for name in ("text_weight", "image_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(name, got=getattr(self, name), expected="at least 0")


class TextToImageObjective(Objective[TextToImageTransformer]):
    """Trains a `TextToImageTransformer` on batches of "text" and "codes".

    Args:
        model: The model.
        config: The loss.
        text: Validation captions' tokens.
        codes: Validation pictures' codes.
        decode: Codes to pictures in [-1, 1], for previews.
    """

    def __init__(
        self,
        model: TextToImageTransformer,
        config: TextToImageLossConfig,
        *,
        text: Int[Tensor, "N T"],
        codes: Int[Tensor, "N h w"],
        decode: Callable[[Int[Tensor, "B h w"]], Float[Tensor, "B 3 H W"]],
    ) -> None:
        self.model = model
        self.config = config
        self.text = text
        self.codes = codes
        self.decode = decode

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The weighted cross-entropies of a batch, in nats a token."""
        text, codes = batch["text"], batch["codes"].flatten(1)
        chance = torch.rand(len(text), generator=generator, device=text.device)
        loss = self.model.loss(text, codes, drop_condition=chance < self.config.condition_dropout)
        total = weighted_loss(
            loss, text_weight=self.config.text_weight, image_weight=self.config.image_weight
        )
        return Loss(total, {"text_nats": loss.text.detach(), "image_nats": loss.image.detach()})

    def validate(self, *, progress: float, batch_size: int = 32) -> dict[str, float]:
        """Bits a token of each kind, and bits of a whole picture given its caption."""
        sums = torch.zeros(2, dtype=torch.float64)
        for text, codes in zip(
            self.text.split(batch_size), self.codes.split(batch_size), strict=True
        ):
            device = self.model.device
            loss = self.model.loss(text.to(device), codes.flatten(1).to(device))
            sums += len(text) * torch.stack([loss.text, loss.image]).double().cpu()
        text_nats, image_nats = (sums / len(self.text)).tolist()
        image_bits = image_nats / math.log(2)
        return {
            "text_bits": text_nats / math.log(2),
            "image_bits": image_bits,
            "picture_bits": image_bits * self.codes[0].numel(),
        }

    def preview(self) -> Image.Image:
        """Validation captions: their pictures as the codes say, and drawn by the model."""
        text = self.text[:_NUM_PREVIEWS].to(self.model.device)
        drawn = sample(self.model, text, keys=[(0, index) for index in range(len(text))])
        device = next(self.model.parameters()).device
        true = self.codes[:_NUM_PREVIEWS].to(device)
        pictures = torch.cat([self.decode(true), self.decode(drawn)])
        return contact_sheet(to_pil(pictures), columns=len(text))
