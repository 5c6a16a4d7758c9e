"""What a training run minimises. There is one loop; what differs is an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

Batch = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, and numbers worth logging beside it.

    Attributes:
        total: What is minimised: a mean over the batch's examples.
        metrics: Detached scalars.
    """

    total: Float[Tensor, ""]
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC, Generic[Model]):
    """A model, the loss of a batch, and how the model is judged and shown.

    Attributes:
        model: What is trained, on its device.
    """

    model: Model

    @abstractmethod
    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The loss of a batch.

        Args:
            batch: Named tensors on the model's device.
            progress: Share of the run's pictures seen, in [0, 1].
            generator: Source of every random number that the loss draws.
        """

    def after_update(self, generator: torch.Generator) -> dict[str, float]:
        """What has to happen once the parameters have moved; numbers worth logging."""
        return {}

    @abstractmethod
    def validate(self, *, progress: float) -> dict[str, float]:
        """Scores of the model, as it is, on data that is never trained on.

        Args:
            progress: Share of the run's pictures seen, in [0, 1]: where its schedules stand.
        """

    @abstractmethod
    def preview(self) -> Image.Image:
        """A picture of what the model, as it is, can do."""
