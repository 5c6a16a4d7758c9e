"""The Gumbel-softmax relaxation: codes that a gradient passes through.

    y = softmax((logits + g) / tau),   g ~ Gumbel(0, 1)

As tau falls, y becomes the one-hot draw argmax(logits + g) from q = softmax(logits).

    relaxed = relax(logits, temperature=0.5, generator=generator)     # its codes, entropies, ...

A CPU runs compiled loops (compiled_relaxation.py); `relax_reference` is what they are tested
against, and what other devices run.

Source: Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax" (arXiv 1611.01144);
"Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), section 2.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

_f = np.float32


class Relaxed(NamedTuple):
    """What `relax` gives.

    Attributes:
        draws: Relaxed ones, which sum to 1 over K.
        entropies: Sum q ln q of q = softmax(logits), in nats.
        likeliest: The codes of the largest logits, without noise; they have no gradient.
    """

    draws: Float[Tensor, "*S K"]
    entropies: Float[Tensor, "*S"]
    likeliest: Int64[Tensor, "*S"]


def gumbel_like(
    logits: Float[Tensor, "*S"], generator: torch.Generator | None, *, scale: float = 1.0
) -> Float[Tensor, "*S"]:
    """Gumbel(0, 1) noise, -ln(-ln u) of uniform u, times a scale: float32, index after index."""
    noise = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    if noise.device.type != "cpu":
        return noise.uniform_(generator=generator).log_().neg_().log_().mul_(-scale)
    from armchair.core.threads import share  # imports numba
    from armchair.models.autoencoders.compiled_relaxation import fill_gumbel

    share(fill_gumbel, noise, _seed(generator), _f(scale))
    return noise


def _seed(generator: torch.Generator | None) -> np.uint64:
    return np.uint64(int(torch.randint(2**62, (), generator=generator, device="cpu")))


def relax(
    logits: Float[Tensor, "*S K"],
    *,
    temperature: float,
    noise_scale: float = 1.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Relaxed:
    """Draw from the relaxation, and say what the logits say without noise.

    Args:
        logits: Unnormalised ln q, float32.
        temperature: tau, above 0.
        noise_scale: Factor on the Gumbel noise; 0 for a plain softmax, which draws nothing.
        generator: Source of the noise, which is that of `gumbel_like`.
        dtype: Of what the draws are multiplied in: they are bfloat16 if it is, or else float32.
    """
    dtype = dtype if dtype == torch.bfloat16 else torch.float32
    if logits.device.type != "cpu":
        has_noise = noise_scale > 0
        noise = gumbel_like(logits, generator, scale=noise_scale) if has_noise else None
        draws, *others = relax_reference(logits, noise, temperature=temperature)
        return Relaxed(draws.to(dtype), *others)
    seed = _seed(generator) if noise_scale > 0 else np.uint64(0)
    return Relaxed(*_CompiledRelaxation.apply(logits, seed, noise_scale, temperature, dtype))


def relax_reference(
    logits: Float[Tensor, "*S K"], noise: Float[Tensor, "*S K"] | None, *, temperature: float
) -> Relaxed:
    """The same in torch's own operations, on any device."""
    noisy = logits if noise is None else logits + noise
    log_q = F.log_softmax(logits, dim=-1)
    entropies = (log_q.exp() * log_q).sum(-1)
    return Relaxed(F.softmax(noisy / temperature, dim=-1), entropies, logits.argmax(-1))


class _CompiledRelaxation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        seed: np.uint64,
        noise_scale: float,
        temperature: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from armchair.core.threads import share
        from armchair.models.autoencoders.compiled_relaxation import relax

        logits = logits.contiguous()
        relaxed = torch.empty_like(logits, dtype=dtype)
        statistics = logits.new_empty(*logits.shape[:-1], 2)
        likeliest = torch.empty(logits.shape[:-1], dtype=torch.int64, device=logits.device)
        settings = (seed, _f(noise_scale), _f(temperature), logits.shape[-1])
        share(relax, logits, *settings, relaxed, statistics, likeliest)
        ctx.save_for_backward(logits, relaxed, statistics)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(likeliest)
        return relaxed, statistics[..., 1], likeliest

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, d_relaxed: Tensor | None, d_entropies: Tensor | None, _: None
    ) -> tuple[Tensor, None, None, None, None]:
        from armchair.core.threads import share
        from armchair.models.autoencoders.compiled_relaxation import relax_backward

        logits, relaxed, statistics = ctx.saved_tensors
        none, d_logits = logits.new_empty(0), torch.empty_like(logits)
        d_relaxed, d_entropies = (
            none if gradient is None else gradient.contiguous()
            for gradient in (d_relaxed, d_entropies)
        )
        rows = (logits, _f(ctx.temperature), logits.shape[-1], relaxed, statistics)
        share(relax_backward, *rows, d_relaxed, d_entropies, d_logits)
        return d_logits, None, None, None, None
