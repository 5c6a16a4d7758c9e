"""A transformer over a caption's tokens, and over vectors that follow them.

    states = TextStream(TextStreamConfig(vocab_size=512, ...), pattern="all")(text)     # B T D

The decoder reads captions with one, the priors predict embeddings at the end of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from armchair.core.device import product_dtype
from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import Condition
from armchair.nn.blocks import TransformerBlock, init_weights
from armchair.nn.embeddings import TextEmbedding
from armchair.nn.kv_cache import KVCache, LayerCache, plain_slots


@dataclass(frozen=True, kw_only=True)
class TextStreamConfig:
    """What `TextStream` is built from.

    Attributes:
        vocab_size: Text tokens; position i has the padding token `vocab_size + i`.
        text_length: Text positions.
        dim: Width of the stream, a multiple of `num_heads`.
        num_layers: Transformer blocks.
        num_heads: Attention heads of each.
        dropout: Share of the embeddings and of each branch's outputs dropped in training.
    """

    vocab_size: int
    text_length: int
    dim: int
    num_layers: int
    num_heads: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in ("vocab_size", "text_length", "dim", "num_layers", "num_heads"):
            if getattr(self, field) < 1:
                raise ConfigError(field, got=getattr(self, field), expected="at least 1")
        if self.dim % self.num_heads:
            expected = f"a multiple of num_heads = {self.num_heads}"
            raise ConfigError("dim", got=self.dim, expected=expected)
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout", got=self.dropout, expected="0 or more, less than 1")


class TextStream(nn.Module):
    """Embedded text tokens, perhaps vectors after them, and transformer blocks.

    Args:
        config: Its sizes.
        pattern: "causal" where each token sees those before it, "all" where it sees all.
    """

    def __init__(self, config: TextStreamConfig, *, pattern: Literal["causal", "all"]) -> None:
        super().__init__()
        self.config = config
        self.embedding = TextEmbedding(
            config.vocab_size, text_length=config.text_length, dim=config.dim
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.dim, num_heads=config.num_heads, pattern=pattern, dropout=config.dropout
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        init_weights(self, num_layers=config.num_layers)

    def null_text(self, batch_size: int) -> Int64[Tensor, "B T"]:
        """The caption that says nothing: padding at every position."""
        return self.embedding.null_text(batch_size)

    def null_caption(self, condition: Condition) -> Condition:
        """In the place of "text" and of its "text_embedding": padding, and zeros."""
        text = condition["text"]
        return {
            "text": self.null_text(len(text)).to(text.device),
            "text_embedding": torch.zeros_like(condition["text_embedding"]),
        }

    def forward(
        self, text: Int64[Tensor, "B T"], after: Float[Tensor, "B N D"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """The last states of the text, and of the vectors after it; float32 also under autocast."""
        x = self.embedding(text)
        if after is not None:
            x = torch.cat([x, after], dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self._read_out(x)

    def new_cache(self, batch_size: int, *, before: int, after: int) -> KVCache:
        """Empty caches for rows of states, in the dtype that attention runs in.

        Args:
            batch_size: Rows.
            before: States that a prefill runs, of each row its own.
            after: States that are run one by one.
        """
        weight = self.norm.weight
        dtype = product_dtype(weight.device, otherwise=weight.dtype)
        heads = self.config.num_heads
        head_dim, slots = self.config.dim // heads, plain_slots(after)

        def empty(length: int) -> Tensor:
            shape = (2, batch_size, heads, length, head_dim)
            return torch.zeros(shape, dtype=dtype, device=weight.device)

        return KVCache([LayerCache([empty(before)], empty(after), slots) for _ in self.blocks])

    def prefill(
        self, text: Int64[Tensor, "B T"], after: Float[Tensor, "B N D"], cache: KVCache
    ) -> Float[Tensor, "B D"]:
        """Run the text and what follows it, and keep their keys and values; the last state."""
        x = torch.cat([self.embedding(text), after], dim=1)
        for block, layer in self._cached_blocks(cache):
            x = block.prefill(x, layer)
        return self._read_out(x[:, -1])

    def decode(self, x: Float[Tensor, "B 1 D"], cache: KVCache, index: int) -> Float[Tensor, "B D"]:
        """Run vector number `index` of those after the prefill; its state."""
        for block, layer in self._cached_blocks(cache):
            x = block.decode(x, layer, index)
        return self._read_out(x[:, 0])

    def _cached_blocks(self, cache: KVCache) -> Iterator[tuple[TransformerBlock, LayerCache]]:
        blocks = cast(Iterable[TransformerBlock], self.blocks)
        return zip(blocks, cache.layers, strict=True)

    def _read_out(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(x.float())
