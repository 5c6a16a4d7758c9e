"""The discrete VAE: the first stage of DALL·E.

    q(z|x) is a categorical over the codebook at each place of the grid. Training draws from its
    Gumbel-softmax relaxation at temperature tau; at inference a place's code is its likeliest one.

    dvae = DiscreteVAE(DiscreteVAEConfig(image_size=128, codebook_size=512, width=32))
    codes = dvae.encode(images)           # B 3 128 128 -> B 16 16
    again = dvae.decode(codes)            # B 16 16 -> B 3 128 128

Source: "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), section 2.1 and appendix A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from armchair.core.device import product_dtype
from armchair.core.errors import ConfigError
from armchair.models.autoencoders.convolutional import AutoencoderConfig, Decoder, Encoder
from armchair.models.autoencoders.interface import ImageTokenizer
from armchair.models.autoencoders.likelihoods import kl_to_uniform, logit_laplace_nll
from armchair.models.autoencoders.quantizers import code_counts, squared_distances
from armchair.models.autoencoders.relaxation import gumbel_like, relax

_LATENT_STD = 0.4  # of an untrained encoder's latents


@dataclass(frozen=True, kw_only=True)
class DiscreteVAEConfig(AutoencoderConfig):
    """The shape of a discrete VAE; the defaults are the paper's.

    Attributes:
        logits: "linear": the encoder's last convolution gives a logit for each code, as in the
            paper. "distance": it gives a latent, and a code's logit is minus its squared distance
            to the latent times a learned precision. Codes then have a place among the latents, so
            that an unused one can be put where it is needed.
        initial_precision: Of the distances, where "distance" is chosen.
    """

    logits: Literal["linear", "distance"] = "linear"
    initial_precision: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logits not in ("linear", "distance"):
            raise ConfigError("logits", got=self.logits, expected='"linear" or "distance"')
        if self.initial_precision <= 0:
            raise ConfigError("initial_precision", got=self.initial_precision, expected="above 0")


@dataclass(frozen=True)
class RelaxedOutput:
    """What a training pass through the relaxation gives.

    Attributes:
        logits: Unnormalised log q(z|x).
        likeliest: The code of each place's largest logit.
        kl_nats: KL(q(z|x) || uniform), summed over a picture's codes.
        statistics: Three means and three log-scales for each pixel.
        latents: What the distances are measured from; None for linear logits.
    """

    logits: Float[Tensor, "B K h w"]
    likeliest: Int[Tensor, "B h w"]
    kl_nats: Float[Tensor, " B"]
    statistics: Float[Tensor, "B 6 H W"]
    latents: Float[Tensor, "B C h w"] | None


class DiscreteVAE(ImageTokenizer):
    """Encoder, codebook, and decoder. The codebook is the decoder's first 1x1 convolution.

    Attributes:
        code_uses: With distance logits, each code's moving share of the places of a batch, in
            units of its fair share 1/K.
    """

    code_uses: Tensor

    def __init__(self, config: DiscreteVAEConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.codebook_size, config.codebook_dim
        self.by_distance = config.logits == "distance"
        self.encoder = Encoder(config, out_channels=dim if self.by_distance else size)
        self.codebook = nn.Embedding(size, dim)
        if self.by_distance:
            self.log_precision = nn.Parameter(torch.tensor(math.log(config.initial_precision)))
            self.register_buffer("code_uses", torch.ones(size))
            nn.init.normal_(self.codebook.weight, std=_LATENT_STD)
        else:
            self.codebook_bias = nn.Parameter(torch.zeros(dim))
        self.decoder = Decoder(config)

    def posterior(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B K h w"], Float[Tensor, "B C h w"] | None]:
        """Unnormalised log q(z|x) in float32, and the latents behind distance logits."""
        encoded = self.encoder(images).float()
        if not self.by_distance:
            return encoded, None
        scale = -self.log_precision.exp()
        return squared_distances(encoded, self.codebook.weight, scale=scale), encoded

    def relax(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        temperature: float,
        noise_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> RelaxedOutput:
        """Encode, draw relaxed codes, and decode them.

        Args:
            images: Pictures in [-1, 1].
            temperature: tau of the Gumbel-softmax, above 0.
            noise_scale: Factor on the Gumbel noise: 1 in the paper; 0 gives a plain softmax.
            generator: Source of the noise.
        """
        logits, latents = self.posterior(images)
        rows = logits.movedim(1, -1).contiguous()  # B h w K
        relaxed = relax(
            rows,
            temperature=temperature,
            noise_scale=noise_scale,
            generator=generator,
            dtype=product_dtype(rows.device),
        )
        kl = (relaxed.entropies + math.log(rows.shape[-1])).flatten(1).sum(1)
        embeddings = relaxed.draws @ self.codebook.weight
        if not self.by_distance:
            embeddings = embeddings + self.codebook_bias
        statistics = self.decoder(embeddings.movedim(-1, 1))
        return RelaxedOutput(logits, relaxed.likeliest, kl, statistics, latents)

    def harden(self, images: Float[Tensor, "B 3 H W"]) -> RelaxedOutput:
        """Encode, take the likeliest codes, and decode them; only the decoder has a gradient."""
        with torch.no_grad():
            logits, latents = self.posterior(images)
            codes = logits.argmax(dim=1)
            embeddings = self._embed(codes)
        statistics = self.decoder(embeddings)
        return RelaxedOutput(logits, codes, kl_to_uniform(logits), statistics, latents)

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B h w"]:
        """The likeliest code of each place, without noise (section 2.2)."""
        return self.posterior(images)[0].argmax(dim=1)

    def elbo_nats(
        self, images: Float[Tensor, "B 3 H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " B"]:
        """The evidence lower bound of each picture, in nats; see `ImageTokenizer`."""
        logits, _ = self.posterior(images)
        codes = (logits + gumbel_like(logits, generator)).argmax(dim=1)
        return -logit_laplace_nll(images, self.decode_statistics(codes)) - kl_to_uniform(logits)

    def decode_statistics(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B 6 H W"]:
        """The pixel statistics that codes stand for: three means, three log-scales."""
        return self.decoder(self._embed(codes))

    def _embed(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B C h w"]:
        embeddings = self.codebook(codes)
        if not self.by_distance:
            embeddings = embeddings + self.codebook_bias
        return embeddings.movedim(-1, 1)  # B h w C -> B C h w

    @torch.no_grad()
    def track_uses(self, codes: Int[Tensor, "B h w"], decay: float) -> None:
        """Move `code_uses` toward a batch's codes."""
        fair = codes.numel() / self.config.codebook_size
        uses = code_counts(codes, self.config.codebook_size) / fair
        self.code_uses.lerp_(uses, 1 - decay)

    @torch.no_grad()
    def restart_codes(self, dead: Int[Tensor, " R"], latents: Float[Tensor, "R C"]) -> None:
        """Put codes where latents are; they count as fairly used until tracking knows better."""
        self.codebook.weight[dead] = latents
        self.code_uses[dead] = 1.0
