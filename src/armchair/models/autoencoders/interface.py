"""What an image tokenizer is: pictures to a grid of codes and back."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from armchair.models.autoencoders.convolutional import AutoencoderConfig
from armchair.models.autoencoders.likelihoods import reconstruct


class ImageTokenizer(nn.Module, ABC):
    """A model that writes a picture as codes and reads it back.

    Attributes:
        config: Its shape: picture size, grid, and codebook.
    """

    config: AutoencoderConfig

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B h w"]:
        """The codes of pictures in [-1, 1]: deterministic, each in [0, codebook_size)."""

    @abstractmethod
    def decode_statistics(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B 6 H W"]:
        """The pixel statistics that codes stand for: three means, three log-scales."""

    @abstractmethod
    def elbo_nats(
        self, images: Float[Tensor, "B 3 H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " B"]:
        """The evidence lower bound of each picture, in nats, with codes drawn from the posterior.

            E_q[ln p(x|z)] - KL(q(z|x) || uniform), one z for each picture

        Args:
            images: Pictures in [-1, 1].
            generator: Source of the draw.
        """

    def decode(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B 3 H W"]:
        """The pictures in [-1, 1] that codes stand for."""
        return reconstruct(self.decode_statistics(codes))
