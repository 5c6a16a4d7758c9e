"""The discrete VAE's loss.

    loss = (-E[ln p(x|z)] + beta · KL(q(z|x) || uniform)) / (3·H·W)

with z drawn from the Gumbel-softmax relaxation at temperature tau.

Source: "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), section 2.1 and appendix A.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.models.autoencoders.dvae import DiscreteVAE, RelaxedOutput
from armchair.models.autoencoders.likelihoods import logit_laplace_nll
from armchair.models.autoencoders.quantizers import draw_restarts
from armchair.models.autoencoders.reconstruction import (
    Reconstruction,
    error_by_place,
    reconstruction_loss,
)
from armchair.training.objective import Batch, Loss
from armchair.training.objectives.autoencoder import AutoencoderObjective

_USES_DECAY = 0.95  # of the moving count of code uses, an update


@dataclass(frozen=True, kw_only=True)
class DiscreteVAELossConfig:
    """The loss; the defaults are the paper's, for its 3,000,000 updates.

    Attributes:
        temperature: tau of the Gumbel-softmax.
        kl_weight: beta, on the joint KL of a picture's codes.
        noise: Factor on the Gumbel noise; always 1 in the paper. A codebook of a few thousand
            updates collapses under full noise before the encoder can speak over it: ramp it in.
        reconstruction: The picture's part of the loss.
        usage_weight: Weight of a reward for keeping every code in use; 0 in the paper.
        usage_floor: Share of its fair part (1/K) below which a code's mean posterior in the batch
            is pushed up; codes above it are left alone.
        commitment_weight: With distance logits, the weight of the mean squared distance between
            latents and their nearest codes.
        restart_below: With distance logits, a code whose moving share of places falls below this
            share of 1/K is put at a latent whose patch comes out badly; 0 never does.
        restart_until: Progress after which codes stay where they are.
        decoder_only_from: Progress after which the encoder and the codebook stay as they are, and
            the decoder alone learns, from hard codes, which are what it is given once trained; 1
            in the paper, for never.
    """

    temperature: Schedule = Schedule.of(1.0, (150_000 / 3_000_000, 1 / 16, "cosine"))
    kl_weight: Schedule = Schedule.of(0.0, (5_000 / 3_000_000, 6.6, "cosine"))
    noise: Schedule = Schedule.of(1.0)
    reconstruction: Reconstruction = "logit_laplace"
    usage_weight: float = 0.0
    usage_floor: float = 0.2
    commitment_weight: float = 0.0
    restart_below: float = 0.0
    restart_until: float = 0.7
    decoder_only_from: float = 1.0

    def __post_init__(self) -> None:
        if any(knot.value <= 0 for knot in self.temperature.knots):
            raise ConfigError("temperature", got=self.temperature, expected="above 0 everywhere")
        if not 0 < self.usage_floor <= 1:
            raise ConfigError("usage_floor", got=self.usage_floor, expected="in (0, 1]")
        if not 0 < self.decoder_only_from <= 1:
            got = self.decoder_only_from
            raise ConfigError("decoder_only_from", got=got, expected="in (0, 1]")


def usage_penalty(logits: Float[Tensor, "B K h w"], floor: float) -> Float[Tensor, ""]:
    """How far codes fall short of a floor on their mean posterior, in nats, averaged over codes.

        mean_k max(0, ln(floor/K) - ln mean_q(k))

    A code above the floor feels nothing, so the codes of common places stay common.

    Args:
        logits: Unnormalised log q(z|x).
        floor: Share of 1/K.
    """
    num_codes = logits.shape[1]
    mean_posterior = F.softmax(logits.float(), dim=1).mean((0, 2, 3))
    return F.relu(math.log(floor / num_codes) - (mean_posterior + 1e-12).log()).mean()


@dataclass(frozen=True)
class _Quantized:
    """What restarting codes needs of a part of a batch."""

    codes: Tensor  # B h w
    latents: Tensor  # B C h w
    error: Tensor  # B h w


class DiscreteVAEObjective(AutoencoderObjective[DiscreteVAE]):
    """Trains a `DiscreteVAE` on batches of "images".

    Args:
        model: The model.
        config: The loss.
        validation: Pictures in [-1, 1] that are never trained on.
    """

    def __init__(
        self,
        model: DiscreteVAE,
        config: DiscreteVAELossConfig,
        validation: Float[Tensor, "B 3 H W"],
    ) -> None:
        super().__init__(model, validation)
        self.config = config
        self.outputs: list[_Quantized] = []  # of the parts of one update

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        """The relaxed bound of "images" in [-1, 1], divided by a picture's dimensions."""
        images, config = batch["images"], self.config
        if progress >= config.decoder_only_from < 1:
            return self._decoder_loss(images)
        temperature, noise = config.temperature(progress), config.noise(progress)
        output = self.model.relax(
            images, temperature=temperature, noise_scale=noise, generator=generator
        )
        kl_weight = config.kl_weight(progress)
        kl = output.kl_nats.mean()
        error = reconstruction_loss(images, output.statistics, config.reconstruction)
        total = error
        if kl_weight > 0:
            total = total + kl_weight * kl / images[0].numel()
        metrics = {"reconstruction": error.detach(), "kl_nats": kl.detach()}
        if config.usage_weight:
            usage = usage_penalty(output.logits, config.usage_floor)
            total = total + config.usage_weight * usage
            metrics["usage_penalty"] = usage.detach()
        if output.latents is not None:
            nearest = self.model.codebook(output.likeliest).movedim(-1, 1)
            commitment = F.mse_loss(output.latents, nearest)
            total = total + config.commitment_weight * commitment
            metrics["commitment"] = commitment.detach()
            metrics["precision"] = self.model.log_precision.detach().exp()
            if progress < config.restart_until and config.restart_below > 0:
                self.outputs.append(self._quantized(images, output))
        scheduled = {"temperature": temperature, "kl_weight": kl_weight, "noise": noise}
        metrics.update({name: torch.tensor(value) for name, value in scheduled.items()})
        return Loss(total, metrics)

    def _decoder_loss(self, images: Float[Tensor, "B 3 H W"]) -> Loss:
        """The reconstruction from hard codes alone."""
        output = self.model.harden(images)
        error = reconstruction_loss(images, output.statistics, self.config.reconstruction)
        metrics = {"reconstruction": error.detach(), "kl_nats": output.kl_nats.mean()}
        return Loss(error, metrics)

    def after_update(self, generator: torch.Generator) -> dict[str, float]:
        """Put codes that nobody uses where pictures come out badly."""
        if not self.outputs:
            return {}
        codes = torch.cat([output.codes for output in self.outputs])
        latents = torch.cat([output.latents for output in self.outputs])
        error = torch.cat([output.error for output in self.outputs])
        self.outputs.clear()
        self.model.track_uses(codes, _USES_DECAY)
        dead = (self.model.code_uses < self.config.restart_below).nonzero().flatten()
        places = draw_restarts(error.square(), len(dead), generator)
        rows = latents.movedim(1, -1).flatten(0, 2)  # places C
        self.model.restart_codes(dead[: len(places)], rows[places])
        return {"restarted": float(len(places))}

    def _quantized(self, images: Tensor, output: RelaxedOutput) -> _Quantized:
        assert output.latents is not None
        error = error_by_place(images, output.statistics, self.model.config.grid_size)
        return _Quantized(output.likeliest, output.latents.detach(), error)

    def bounds(
        self, images: Float[Tensor, "B 3 H W"], *, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Beside the true bound the relaxed one, at the schedules' tau and noise, with beta = 1."""
        bounds = super().bounds(images, progress=progress, generator=generator)
        temperature, noise = self.config.temperature(progress), self.config.noise(progress)
        output = self.model.relax(
            images, temperature=temperature, noise_scale=noise, generator=generator
        )
        nll = logit_laplace_nll(images, output.statistics)
        return {"relaxed_elbo": -nll - output.kl_nats, **bounds}
