"""The autoregressive prior: a picture's CLIP embedding, one code after the other.

    prior.space.fit(image_embeddings, text_embeddings)         # components and buckets
    codes = prior.space.encode(image_embeddings)               # B K
    logits = prior(text, text_embeddings, dots, codes)         # B K V

One causal transformer over, in this order: the caption's tokens, the caption's CLIP embedding, the
bucket of that embedding's dot product with the picture's, and the picture's codes. A large dot
product marks a caption that fits, so one that is asked for makes the picture fit.

Size: with the layers and the width of the paper's latent decoder (24 of 1,664) 0.89 billion
parameters, where the paper, which rounds to 1 billion, names a text encoder besides. Here the one
stream reads the caption as well.

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.2 and table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import Condition
from armchair.models.priors.embedding_space import NUM_DOTS, EmbeddingCodes
from armchair.models.text_stream import TextStream, TextStreamConfig
from armchair.nn.blocks import init_weights
from armchair.nn.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class AutoregressivePriorConfig:
    """What `AutoregressivePrior` is built from.

    Attributes:
        stream: The transformer.
        embedding_dim: Dimensions of CLIP's embeddings.
        num_components: Principal components of an embedding that are kept; 319 of 1,024 in the
            paper. See `components_needed`.
        num_buckets: Codes of each component.
    """

    stream: TextStreamConfig
    embedding_dim: int
    num_components: int
    num_buckets: int = 1024

    def __post_init__(self) -> None:
        for field in ("embedding_dim", "num_components", "num_buckets"):
            if getattr(self, field) < 1:
                raise ConfigError(field, got=getattr(self, field), expected="at least 1")
        if self.num_components > self.embedding_dim:
            expected = f"at most embedding_dim = {self.embedding_dim}"
            raise ConfigError("num_components", got=self.num_components, expected=expected)


class AutoregressivePrior(nn.Module):
    """A causal transformer over a caption and the codes of a picture's embedding.

    Args:
        config: Its sizes.

    Attributes:
        space: Embeddings to codes and back; to be fitted before training.
    """

    def __init__(self, config: AutoregressivePriorConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.stream.dim
        self.space = EmbeddingCodes(
            config.embedding_dim,
            num_components=config.num_components,
            num_buckets=config.num_buckets,
        )
        self.stream = TextStream(config.stream, pattern="causal")
        self.text_embedding = nn.Linear(config.embedding_dim, dim)
        self.dot = nn.Embedding(NUM_DOTS, dim)
        self.code = nn.Embedding(config.num_buckets, dim)
        self.position = nn.Embedding(config.num_components, dim)
        self.head = nn.Linear(dim, config.num_buckets)
        init_weights(self, num_layers=config.stream.num_layers)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.head.weight.device

    def forward(
        self,
        text: Int64[Tensor, "B T"],
        text_embedding: Float[Tensor, "B E"],
        dots: Int64[Tensor, " B"],
        codes: Int64[Tensor, "B K"],
    ) -> Float[Tensor, "B K V"]:
        """Logits of every code from those before it, float32 also under autocast.

        Args:
            text: Tokens padded to their length.
            text_embedding: CLIP's of the same captions, unit vectors.
            dots: Buckets of dot products, in [0, NUM_DOTS).
            codes: In [0, num_buckets).
        """
        known = self.code(codes[:, :-1]) + self.position.weight[:-1]  # B K-1 D
        after = torch.cat([self._first(text_embedding, dots), known], dim=1)
        states = self.stream(text, after)
        return self._logits(states[:, -codes.shape[1] :])

    def null(self, condition: Condition) -> Condition:
        """In the place of "text" and "text_embedding": padding, and zeros; dot products stay."""
        return self.stream.null_caption(condition)

    def new_cache(self, batch_size: int) -> KVCache:
        """Empty caches for `batch_size` rows of the stream."""
        before, after = self.config.stream.text_length + 2, self.config.num_components - 1
        return self.stream.new_cache(batch_size, before=before, after=after)

    def prefill(
        self,
        text: Int64[Tensor, "B T"],
        text_embedding: Float[Tensor, "B E"],
        dots: Int64[Tensor, " B"],
        cache: KVCache,
    ) -> Float[Tensor, "B V"]:
        """Run all that comes before the codes; the logits of the first code."""
        first = self._first(text_embedding, dots)
        return self._logits(self.stream.prefill(text, first, cache))

    def decode(self, codes: Int[Tensor, " B"], cache: KVCache, index: int) -> Float[Tensor, "B V"]:
        """Run the code of component `index`; the logits of the next one."""
        x = (self.code(codes) + self.position.weight[index])[:, None]  # B 1 D
        return self._logits(self.stream.decode(x, cache, index))

    def _first(self, text_embedding: Tensor, dots: Tensor) -> Tensor:
        embedding = self.text_embedding(text_embedding * self.config.embedding_dim**0.5)
        return torch.stack([embedding.float(), self.dot(dots)], dim=1)  # B 2 D

    def _logits(self, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states)
