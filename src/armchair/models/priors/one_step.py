"""The one-step prior: a picture's CLIP embedding straight from its caption.

    embeddings = prior.embed(text, text_embeddings)              # unit vectors, in one pass

The transformer of the diffusion prior without its timestep and its noise. It gives every caption
one embedding, the best in the mean; the decoder alone makes pictures of a caption differ.

Source: "ECLIPSE: A Resource-Efficient Text-to-Image Prior for Image Generations" (arXiv
2312.04655), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from armchair.core.errors import ConfigError
from armchair.models.priors.embedding_space import EmbeddingScale, Scaling
from armchair.models.text_stream import TextStream, TextStreamConfig
from armchair.nn.blocks import init_weights


@dataclass(frozen=True, kw_only=True)
class OneStepPriorConfig:
    """What `OneStepPrior` is built from.

    Attributes:
        stream: The transformer.
        embedding_dim: Dimensions of CLIP's embeddings.
        scaling: How embeddings are scaled; see `EmbeddingScale`.
    """

    stream: TextStreamConfig
    embedding_dim: int
    scaling: Scaling = "unit"

    def __post_init__(self) -> None:
        if self.embedding_dim < 1:
            raise ConfigError("embedding_dim", got=self.embedding_dim, expected="at least 1")


class OneStepPrior(nn.Module):
    """A causal transformer over a caption, its embedding, and a query.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: OneStepPriorConfig) -> None:
        super().__init__()
        self.config = config
        dim, embedding_dim = config.stream.dim, config.embedding_dim
        self.scale = EmbeddingScale(embedding_dim, config.scaling)
        self.stream = TextStream(config.stream, pattern="causal")
        self.text_embedding = nn.Linear(embedding_dim, dim)
        self.query = nn.Embedding(1, dim)
        self.head = nn.Linear(dim, embedding_dim)
        init_weights(self, num_layers=config.stream.num_layers)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.head.weight.device

    def forward(
        self, text: Int64[Tensor, "B T"], text_embedding: Float[Tensor, "B E"]
    ) -> Float[Tensor, "B E"]:
        """The pictures' embeddings, scaled as `scale` does; float32 also under autocast.

        Args:
            text: Tokens padded to their length.
            text_embedding: CLIP's of the same captions, unit vectors.
        """
        first = self.text_embedding(text_embedding * self.config.embedding_dim**0.5)
        query = self.query.weight.expand(len(text), -1)
        states = self.stream(text, torch.stack([first.float(), query], dim=1))
        with torch.autocast(text_embedding.device.type, enabled=False):
            return self.head(states[:, -1])

    def embed(
        self, text: Int64[Tensor, "B T"], text_embedding: Float[Tensor, "B E"]
    ) -> Float[Tensor, "B E"]:
        """The same as unit vectors."""
        return self.scale.inverse(self(text, text_embedding))
