"""What a diffusion model is: a network and the process that it reverses.

encoded = model.encode(condition)                      # once
prediction = model.denoise(x_t, t, encoded)            # at every step
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from armchair.diffusion.guidance import Condition
from armchair.diffusion.process import Prediction, ProcessConfig, build_schedule, denoiser_of
from armchair.diffusion.schedules import NoiseSchedule


class DiffusionModel(nn.Module, ABC):
    """A network that says of a noisy batch what its process asks for.

    Args:
        process: The process.
    """

    def __init__(self, process: ProcessConfig) -> None:
        super().__init__()
        self.process = process

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The process's noise schedule."""
        return build_schedule(self.process)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def role(self) -> str:
        """What it is called in messages, such as "the prior"."""

    @abstractmethod
    def null(self, condition: Condition) -> Condition:
        """What stands in for a condition that says nothing, in the same names and shapes."""

    @abstractmethod
    def encode(self, condition: Condition) -> Condition:
        """Prepare a condition, once for all timesteps.

        Raises:
            ConfigError: It is not what this model is made for.
        """

    @abstractmethod
    def forward(
        self, x_t: Float[Tensor, "B *S"], t: Int[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B *S2"]:
        """The network's output; with a learned variance, its second half.

        Args:
            x_t: A noisy batch.
            t: Timesteps.
            condition: As `encode` gave it.
        """

    def denoise(
        self,
        x_t: Float[Tensor, "B *S"],
        t: Int[Tensor, " B"],
        condition: Condition,
        *,
        network: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Prediction:
        """The same as a prediction of x_0: a `ConditionalDenoiser`.

        Args:
            x_t: A noisy batch.
            t: Timesteps.
            condition: As `encode` gave it.
            network: What stands in for `forward` with this condition, and gives the same.
        """
        denoiser = denoiser_of(
            self.schedule,
            network or (lambda x_t, t: self(x_t, t, condition)),
            self.process.parameterisation,
            learned_variance=self.process.learned_variance,
        )
        return denoiser(x_t, t)
