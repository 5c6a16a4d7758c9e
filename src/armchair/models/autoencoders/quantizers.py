"""Nearest codes, and codes that nobody uses put where they are needed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def squared_distances(
    latents: Float[Tensor, "B C h w"],
    codebook: Float[Tensor, "K C"],
    *,
    scale: float | Float[Tensor, ""] = 1.0,
) -> Float[Tensor, "B K h w"]:
    """Squared Euclidean distance of each place's latent to each code, in float32.

    |x - c|² = -2 x·c + |x|² + |c|², as one product of (-2x, |x|², 1) and (c, 1, |c|²)

    Args:
        latents: Of each place.
        codebook: The codes.
        scale: What distances are multiplied by.

    Returns:
        Distances, with those of one place side by side in memory.
    """
    with torch.autocast(latents.device.type, enabled=False):
        x = latents.float().movedim(1, -1)  # B h w C
        squares, ones = x.square().sum(-1, keepdim=True), torch.ones_like(x[..., :1])
        places = scale * torch.cat([-2 * x, squares, ones], dim=-1)
        of_codes = codebook.square().sum(1, keepdim=True)
        codes = torch.cat([codebook, torch.ones_like(of_codes), of_codes], dim=1)
        return (places @ codes.T).movedim(-1, 1)


def code_counts(codes: Int[Tensor, "*S"], codebook_size: int) -> Int[Tensor, " K"]:
    """How often each code occurs."""
    return torch.bincount(codes.flatten(), minlength=codebook_size)


def perplexity(counts: Int[Tensor, " K"] | Float[Tensor, " K"]) -> float:
    """Exp of the entropy of how codes are used: from 1 (one code) to K (all alike)."""
    share = counts.double() / counts.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def draw_restarts(
    weights: Float[Tensor, "B h w"], count: int, generator: torch.Generator
) -> Int[Tensor, " R"]:
    """Places, counted through the flattened batch, at which unused codes restart.

    Args:
        weights: How much each place wants a code of its own; at least 0.
        count: How many to draw, without repeats; fewer where fewer places have a weight.
        generator: Source of the draw.
    """
    flat = weights.flatten().float()
    count = min(count, int((flat > 0).sum()))
    if count == 0:
        return torch.zeros(0, dtype=torch.int64, device=flat.device)
    return torch.multinomial(flat, count, generator=generator)
