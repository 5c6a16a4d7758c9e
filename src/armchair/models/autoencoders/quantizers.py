"""Nearest codes, and codes that nobody uses put where they are needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def squared_distances(
    latents: Float[Tensor, "B C h w"], codebook: Float[Tensor, "K C"]
) -> Float[Tensor, "B K h w"]:
    """Squared Euclidean distance of each place's latent to each code, in float32.

    |x - c|² = |x|² - 2 x·c + |c|²
    """
    with torch.autocast(latents.device.type, enabled=False):
        x = latents.float()
        products = torch.einsum("bchw,kc->bkhw", x, codebook)
        squares = codebook.square().sum(1)[:, None, None]
        return x.square().sum(1, keepdim=True) - 2 * products + squares


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


def error_by_place(
    images: Float[Tensor, "B 3 H W"], reconstructions: Float[Tensor, "B 3 H W"], grid_size: int
) -> Float[Tensor, "B h w"]:
    """Mean absolute error of the patch that each place of the grid stands for."""
    error = (images - reconstructions).abs().mean(1)
    return F.adaptive_avg_pool2d(error, grid_size)
