"""What narrows a next-token distribution before it is drawn from.

Each filter takes image logits and returns new ones; none writes to what it was given. In use they
come in this order: temperature, then top-k, then top-p. Every row keeps at least one token.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from armchair.core.errors import ConfigError


def check_filters(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse what the filters cannot do.

    Args:
        temperature: More than 0.
        top_k: At least 1; None for no filter.
        top_p: More than 0, at most 1; None for no filter.

    Raises:
        ConfigError: One is out of its range, or not finite.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        hint = "top_k=1 always takes the likeliest token" if temperature == 0 else None
        raise ConfigError("temperature", got=temperature, expected="more than 0", hint=hint)
    if top_k is not None and top_k < 1:
        raise ConfigError("top_k", got=top_k, expected="at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError("top_p", got=top_p, expected="more than 0, at most 1")


def apply_temperature(logits: Float[Tensor, "B V"], temperature: float) -> Float[Tensor, "B V"]:
    """Sharpen (below 1) or flatten (above 1) the distribution.

    Args:
        logits: Image logits.
        temperature: More than 0; 1 leaves them as they are.
    """
    return logits / temperature


def keep_top_k(logits: Float[Tensor, "B V"], top_k: int) -> Float[Tensor, "B V"]:
    """Keep the k likeliest image tokens; the others get -inf.

    Args:
        logits: Image logits.
        top_k: Tokens to keep, at least 1; of equals, those with the lower ids. As many as there
            are, or more, keeps all.
    """
    if top_k >= logits.shape[-1]:
        return logits
    last = logits.topk(top_k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    above, equal = logits > last, logits == last
    room = top_k - above.sum(dim=-1, keepdim=True)  # for equals of the last that is kept
    kept = above | (equal & (equal.cumsum(dim=-1) <= room))
    return logits.where(kept, float("-inf"))


def keep_top_p(logits: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """Keep the smallest set of likeliest tokens whose probability reaches p; the others get -inf.

    Args:
        logits: Image logits.
        top_p: Probability to reach, more than 0 and at most 1.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    if top_p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.double().softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of the likelier tokens
    kept = torch.where(before < top_p, order, order[:, :1])
    return _keep_only(logits, kept)


def filter_logits(
    logits: Float[Tensor, "B V"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "B V"]:
    """Apply the filters that are asked for; see each of them, and `check_filters`."""
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return logits


def _keep_only(logits: Tensor, kept: Tensor) -> Tensor:
    nothing = torch.full_like(logits, float("-inf"))
    return nothing.scatter(-1, kept, logits.gather(-1, kept))
