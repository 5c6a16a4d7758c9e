"""Drawing a picture embedding with the autoregressive prior, one code after the other.

    embeddings = sample_codes(prior, text, text_embeddings, keys=[(seed, 0), (seed, 1)])   # B E

The dot product with the caption's embedding is drawn first, from the upper half of those in the
training data: the codes that follow it are then of a picture that fits.

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.core.finite import check_finite
from armchair.models.priors.autoregressive import AutoregressivePrior
from armchair.models.priors.embedding_space import NUM_DOTS
from armchair.sampling.evaluating import evaluating
from armchair.sampling.tokens import candidate_rows, draw, guided_logits, keyed_uniforms


@torch.no_grad()
def sample_codes(
    prior: AutoregressivePrior,
    text: Int64[Tensor, "B T"],
    text_embeddings: Float[Tensor, "B E"],
    *,
    keys: Sequence[tuple[int, int]],
    guidance_scale: float = 1.0,
) -> Float[Tensor, "B E"]:
    """Draw a picture embedding for each caption.

    Args:
        prior: The prior; dropout is off while it draws.
        text: Tokens padded to their length.
        text_embeddings: CLIP's of the same captions, unit vectors.
        keys: For each caption its (seed, index), which alone decide its random numbers.
        guidance_scale: At least 1, which is none.

    Returns:
        Unit vectors, on the model's device.

    Raises:
        ConfigError: A setting is out of range, or the inputs do not fit each other.
        SamplingError: The logits of a code are not finite.
    """
    if len(keys) != len(text):
        raise ConfigError("keys", got=len(keys), expected=f"one for each of {len(text)} captions")
    if not 1 <= guidance_scale < float("inf"):
        raise ConfigError("guidance_scale", got=guidance_scale, expected="at least 1, and finite")
    text, text_embeddings = text.to(prior.device), text_embeddings.to(prior.device)
    num_codes = prior.config.num_components
    uniforms = keyed_uniforms("prior", keys, 1 + num_codes).to(prior.device)
    dots = ((1 + uniforms[:, 0]) * (NUM_DOTS / 2)).long()  # the upper half of the buckets

    rows = candidate_rows(len(text), guided=guidance_scale != 1).to(prior.device)
    without = (torch.arange(len(rows), device=prior.device) >= len(text))[:, None]
    text, text_embeddings = text[rows], text_embeddings[rows]
    null = prior.null({"text": text, "text_embedding": text_embeddings})
    text = torch.where(without, null["text"], text)
    text_embeddings = torch.where(without, null["text_embedding"], text_embeddings)

    codes: list[Tensor] = []
    with evaluating(prior):
        cache = prior.new_cache(len(rows))
        logits = prior.prefill(text, text_embeddings, dots[rows], cache)
        for index in range(num_codes):
            if index > 0:
                logits = prior.decode(codes[-1][rows], cache, index - 1)
            guided = guided_logits(logits, len(keys), guidance_scale)
            hint = "lower the guidance scale" if guidance_scale > 1 else None
            check_finite(guided, f"the prior: the logits of code {index}", hint=hint)
            codes.append(draw(guided, uniforms[:, 1 + index]))
    return prior.space.decode(torch.stack(codes, dim=1))
