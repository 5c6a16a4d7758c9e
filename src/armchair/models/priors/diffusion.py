"""The diffusion prior: a picture's CLIP embedding out of noise, for a caption.

    prior = DiffusionPrior(DiffusionPriorConfig(stream=..., embedding_dim=1024, process=...))
    encoded = prior.encode({"text": text, "text_embedding": text_embeddings})
    prediction = prior.denoise(x_t, t, encoded)

One causal transformer over, in this order: the caption's tokens, the caption's CLIP embedding, the
timestep, the noised picture embedding, and a query, at which the answer is read.

Size: with the paper's text encoder (24 layers of width 2,048 over 256 tokens) 1.33 billion
parameters, 1.21 of them in its layers; the paper rounds its prior to 1 billion.

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.2 and table 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import Condition
from armchair.diffusion.process import ProcessConfig
from armchair.models.diffusion_model import DiffusionModel
from armchair.models.priors.embedding_space import EmbeddingScale, Scaling
from armchair.models.text_stream import TextStream, TextStreamConfig
from armchair.nn.blocks import init_weights
from armchair.nn.embeddings import TimestepEmbedding


@dataclass(frozen=True, kw_only=True)
class DiffusionPriorConfig:
    """What `DiffusionPrior` is built from.

    Attributes:
        stream: The transformer, of even width.
        embedding_dim: Dimensions of CLIP's embeddings.
        process: What it is trained to reverse; the paper's predicts x_0. No learned variance.
        scaling: How embeddings are scaled; see `EmbeddingScale`.
    """

    stream: TextStreamConfig
    embedding_dim: int
    process: ProcessConfig
    scaling: Scaling = "paper"

    def __post_init__(self) -> None:
        if self.embedding_dim < 1:
            raise ConfigError("embedding_dim", got=self.embedding_dim, expected="at least 1")
        if self.stream.dim % 2:
            raise ConfigError("stream.dim", got=self.stream.dim, expected="an even number")
        if self.process.learned_variance:
            raise ConfigError("process.learned_variance", got=True, expected="False in a prior")


class DiffusionPrior(DiffusionModel):
    """A causal transformer that predicts the embedding in a noised one.

    Args:
        config: Its sizes and its process.

    Attributes:
        mean_squared_errors: What Analytic-DPM wants to know of each timestep; -1 until measured.
    """

    mean_squared_errors: Tensor

    def __init__(self, config: DiffusionPriorConfig) -> None:
        super().__init__(config.process)
        self.config = config
        dim, embedding_dim = config.stream.dim, config.embedding_dim
        self.scale = EmbeddingScale(embedding_dim, config.scaling)
        self.stream = TextStream(config.stream, pattern="causal")
        self.text_embedding = nn.Linear(embedding_dim, dim)
        self.time = TimestepEmbedding(dim, dim=dim)
        self.noised = nn.Linear(embedding_dim, dim)
        self.query = nn.Embedding(1, dim)
        self.head = nn.Linear(dim, embedding_dim)
        errors = torch.full((config.process.num_timesteps,), -1.0)
        self.register_buffer("mean_squared_errors", errors)
        init_weights(self, num_layers=config.stream.num_layers)

    @property
    def role(self) -> str:
        """The prior."""
        return "the prior"

    def null(self, condition: Condition) -> Condition:
        """A caption of padding, whose embedding is zero: x_t stays."""
        return self.stream.null_caption(condition)

    def encode(self, condition: Condition) -> Condition:
        """Prepare a condition.

        Args:
            condition: "text", B T, tokens padded to their length; "text_embedding", B E, CLIP's
                of the same captions, unit vectors.

        Raises:
            ConfigError: Something is missing, or there is more.
        """
        if set(condition) != {"text", "text_embedding"}:
            raise ConfigError("condition", got=sorted(condition), expected="text, text_embedding")
        unit_variance = condition["text_embedding"] * self.config.embedding_dim**0.5
        return {"text": condition["text"], "text_embedding": unit_variance}

    def forward(
        self, x_t: Float[Tensor, "B E"], t: Int[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B E"]:
        """What the process asks for, float32 also under autocast.

        Args:
            x_t: Noised embeddings, scaled as `scale` does.
            t: Timesteps.
            condition: As `encode` gave it.
        """
        parts = [
            self.text_embedding(condition["text_embedding"]),
            self.time(t),
            self.noised(x_t),
            self.query.weight.expand(len(x_t), -1),
        ]
        after = torch.stack([part.float() for part in parts], dim=1)  # B 4 D
        states = self.stream(condition["text"], after)
        with torch.autocast(x_t.device.type, enabled=False):
            return self.head(states[:, -1])
