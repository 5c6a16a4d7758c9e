"""The Gumbel-softmax relaxation: codes that a gradient passes through.

    y = softmax((logits + g) / tau),   g ~ Gumbel(0, 1)

As tau falls, y becomes the one-hot draw argmax(logits + g) from q = softmax(logits).

    relaxed, entropies = relax(logits, gumbel_like(logits, generator), temperature=0.5)

A CPU runs compiled loops (compiled_relaxation.py); `relax_reference` is what they are tested
against, and what other devices run.

Source: Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax" (arXiv 1611.01144);
"Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), section 2.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_f = np.float32


def gumbel_like(
    logits: Float[Tensor, "*S"], generator: torch.Generator | None, *, scale: float = 1.0
) -> Float[Tensor, "*S"]:
    """Gumbel(0, 1) noise, -ln(-ln u) of uniform u, times a scale: float32, index after index."""
    noise = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    if noise.device.type != "cpu":
        return noise.uniform_(generator=generator).log_().neg_().log_().mul_(-scale)
    from armchair.core.jit import share  # imports numba
    from armchair.models.autoencoders.compiled_relaxation import fill_gumbel

    seed = torch.randint(2**62, (), generator=generator, device="cpu")
    share(fill_gumbel, noise, np.uint64(int(seed)), _f(scale))
    return noise


def relax(
    logits: Float[Tensor, "*S K"], noise: Float[Tensor, "*S K"] | None, *, temperature: float
) -> tuple[Float[Tensor, "*S K"], Float[Tensor, "*S"]]:
    """Relaxed draws, and the negative entropy of what they are drawn from.

    Args:
        logits: Unnormalised ln q, float32.
        noise: What is added to them; None for a plain softmax.
        temperature: tau, above 0.

    Returns:
        The relaxed draws, which sum to 1 over K; and sum q ln q of q = softmax(logits), in nats.
    """
    if logits.device.type != "cpu":
        return relax_reference(logits, noise, temperature=temperature)
    return _CompiledRelaxation.apply(logits, noise, temperature)


def relax_reference(
    logits: Float[Tensor, "*S K"], noise: Float[Tensor, "*S K"] | None, *, temperature: float
) -> tuple[Float[Tensor, "*S K"], Float[Tensor, "*S"]]:
    """The same in torch's own operations, on any device."""
    noisy = logits if noise is None else logits + noise
    log_q = F.log_softmax(logits, dim=-1)
    return F.softmax(noisy / temperature, dim=-1), (log_q.exp() * log_q).sum(-1)


class _CompiledRelaxation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, noise: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor]:
        from armchair.core.jit import share
        from armchair.models.autoencoders.compiled_relaxation import relax

        logits = logits.contiguous()
        relaxed = torch.empty_like(logits)
        statistics = logits.new_empty(*logits.shape[:-1], 2)
        noise = logits.new_empty(0) if noise is None else noise.contiguous()
        rows = (logits, noise, _f(temperature), logits.shape[-1], relaxed, statistics)
        share(relax, *rows)
        ctx.save_for_backward(logits, relaxed, statistics)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return relaxed, statistics[..., 1]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, d_relaxed: Tensor | None, d_entropies: Tensor | None
    ) -> tuple[Tensor, None, None]:
        from armchair.core.jit import share
        from armchair.models.autoencoders.compiled_relaxation import relax_backward

        logits, relaxed, statistics = ctx.saved_tensors
        none, d_logits = logits.new_empty(0), torch.empty_like(logits)
        d_relaxed, d_entropies = (
            none if gradient is None else gradient.contiguous()
            for gradient in (d_relaxed, d_entropies)
        )
        rows = (logits, _f(ctx.temperature), logits.shape[-1], relaxed, statistics)
        share(relax_backward, *rows, d_relaxed, d_entropies, d_logits)
        return d_logits, None, None
