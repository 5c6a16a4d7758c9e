"""The transformer block of DALL·E: pre-norm attention, then a pre-norm perceptron four times wide.

x <- x + attention(norm(x));  x <- x + mlp(norm(x))

The stream itself keeps its dtype (float32 under autocast, as the paper keeps its identity path).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from armchair.nn.attention import JointAttention
from armchair.nn.kv_cache import LayerCache
from armchair.nn.masks import AttentionPattern


class TransformerBlock(nn.Module):
    """One layer of the transformer.

    Args:
        dim: Width D of the stream.
        num_heads: Attention heads; `dim` is a multiple of it.
        pattern: What each token sees.
        dropout: Share of each branch's outputs dropped in training, 0 to 1.
    """

    def __init__(
        self, dim: int, *, num_heads: int, pattern: AttentionPattern, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = JointAttention(dim, num_heads=num_heads, pattern=pattern)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden_dim=4 * dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Run the whole stream through the block."""
        return self._mix(x, self.attention(self.attention_norm(x)))

    def prefill(self, x: Float[Tensor, "B T D"], cache: LayerCache) -> Float[Tensor, "B T D"]:
        """Run the stream's first T tokens through the block and fill the cache."""
        return self._mix(x, self.attention.prefill(self.attention_norm(x), cache))

    def decode(
        self, x: Float[Tensor, "B 1 D"], cache: LayerCache, position: int
    ) -> Float[Tensor, "B 1 D"]:
        """Run the one token at stream `position` through the block."""
        return self._mix(x, self.attention.decode(self.attention_norm(x), cache, position))

    def _mix(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class MLP(nn.Module):
    """A linear layer out, GELU, and a linear layer back, for each token by itself.

    Args:
        dim: Width D of the stream.
        hidden_dim: Width between the two layers.
    """

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden_dim)
        self.activation = nn.GELU()
        self.projection = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Transform each token."""
        return self.projection(self.activation(self.hidden(x)))
