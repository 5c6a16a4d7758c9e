"""The VQ-VAE: the discrete VAE's sibling with nearest-neighbour codes.

The encoder's latent at each place is replaced by the nearest vector of a codebook; the gradient
passes straight through. The codebook follows the latents by exponential moving averages
(van den Oord et al., arXiv 1711.00937, appendix A.1), and a code that nobody uses is restarted
at a latent of the batch (as in Dhariwal et al., arXiv 2005.00341, section 3.1).

vqvae = VQVAE(VQVAEConfig(image_size=128, codebook_size=512, width=32))
codes = vqvae.encode(images)          # B 3 128 128 -> B 16 16
again = vqvae.decode(codes)           # B 16 16 -> B 3 128 128
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.models.autoencoders.convolutional import AutoencoderConfig, Decoder, Encoder
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.likelihoods import logit_laplace_nll
from armchair.models.autoencoders.quantizers import code_counts, squared_distances


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(AutoencoderConfig):
    """The shape of a VQ-VAE and how its codebook moves.

    Attributes:
        codebook_decay: Decay of the moving averages that the codebook follows, in [0, 1).
        restart_below: A code whose moving count of uses in a batch falls below this restarts.
    """

    codebook_decay: float = 0.99
    restart_below: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.codebook_decay < 1:
            raise ConfigError("codebook_decay", got=self.codebook_decay, expected="in [0, 1)")
        if self.restart_below < 0:
            raise ConfigError("restart_below", got=self.restart_below, expected="at least 0")


@dataclass(frozen=True)
class QuantizedOutput:
    """What a training pass through the quantizer gives.

    Attributes:
        codes: The nearest codebook vector of each place.
        statistics: Three means and three log-scales for each pixel.
        commitment: Mean squared distance from latents to their (fixed) codes; the encoder's alone,
            so its weight is the beta of the paper.
        latents: What was quantized, detached.
    """

    codes: Int[Tensor, "B h w"]
    statistics: Float[Tensor, "B 6 H W"]
    commitment: Float[Tensor, ""]
    latents: Float[Tensor, "B C h w"]


class VQVAE(ImageTokenizer):
    """Encoder, moving-average codebook, and decoder."""

    codebook: Tensor
    code_uses: Tensor
    latent_sums: Tensor

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.decay, self.restart_below = config.codebook_decay, config.restart_below
        self.encoder = Encoder(config, out_channels=config.codebook_dim)
        self.decoder = Decoder(config)
        codebook = torch.randn(config.codebook_size, config.codebook_dim)
        self.register_buffer("codebook", codebook)
        self.register_buffer("code_uses", torch.zeros(config.codebook_size))
        self.register_buffer("latent_sums", torch.zeros_like(codebook))

    def nearest(self, latents: Float[Tensor, "B C h w"]) -> Int[Tensor, "B h w"]:
        """The nearest codebook vector of each place, by squared Euclidean distance."""
        return squared_distances(latents, self.codebook).argmin(1)

    def embed(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B C h w"]:
        """The codebook vectors of codes."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    def quantize(self, images: Float[Tensor, "B 3 H W"]) -> QuantizedOutput:
        """Encode, quantize with a straight-through gradient, and decode; the codebook stays."""
        latents = self.encoder(images).float()
        codes = self.nearest(latents)
        quantized = self.embed(codes)
        commitment = F.mse_loss(latents, quantized)
        passed = latents + (quantized - latents).detach()
        return QuantizedOutput(codes, self.decoder(passed), commitment, latents.detach())

    @torch.no_grad()
    def update_codebook(
        self,
        codes: Int[Tensor, "B h w"],
        latents: Float[Tensor, "B C h w"],
        generator: torch.Generator,
    ) -> int:
        """Move the codebook toward a batch's latents and restart the codes that nobody uses.

        Args:
            codes: The batch's codes, from `quantize`.
            latents: The batch's latents, from `quantize`.
            generator: Chooses the latents at which codes restart.

        Returns:
            How many codes were restarted.
        """
        rows = latents.movedim(1, -1).flatten(0, 2)  # places C
        uses = code_counts(codes, self.config.codebook_size).float()
        sums = torch.zeros_like(self.latent_sums).index_add_(0, codes.flatten(), rows)
        self.code_uses.lerp_(uses, 1 - self.decay)
        self.latent_sums.lerp_(sums, 1 - self.decay)
        self.codebook.copy_(self.latent_sums / self.code_uses.clamp_min(1e-5)[:, None])
        dead = (self.code_uses < self.restart_below).nonzero().flatten()
        chosen = torch.randint(len(rows), (len(dead),), generator=generator, device=rows.device)
        restart_uses = max(1.0, self.restart_below)
        self.codebook[dead] = rows[chosen]
        self.code_uses[dead] = restart_uses
        self.latent_sums[dead] = rows[chosen] * restart_uses
        return len(dead)

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B h w"]:
        """The nearest code of each place."""
        return self.nearest(self.encoder(images))

    def elbo_nats(
        self, images: Float[Tensor, "B 3 H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " B"]:
        """The evidence lower bound of each picture, in nats; see `ImageTokenizer`.

        q puts all its mass on one code, so nothing is drawn and the KL is ln K for each place.
        """
        codes = self.encode(images)
        kl = math.log(self.config.codebook_size) * codes[0].numel()
        return -logit_laplace_nll(images, self.decode_statistics(codes)) - kl

    def decode_statistics(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B 6 H W"]:
        """The pixel statistics that codes stand for: three means, three log-scales."""
        return self.decoder(self.embed(codes))
