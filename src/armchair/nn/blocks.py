"""The transformer block: pre-norm attention, then a pre-norm perceptron four times wide.

x <- x + attention(norm(x));  x <- x + mlp(norm(x))

The stream itself keeps its dtype (float32 under autocast, as the paper keeps its identity path).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from armchair.nn.attention import JointAttention, Visible
from armchair.nn.fused import add_bias, add_norm, bias_gelu, is_fused
from armchair.nn.kv_cache import Index, LayerCache
from armchair.nn.linear import product

Activation = Literal["gelu", "quick_gelu"]

_INIT_STD = 0.02


class TransformerBlock(nn.Module):
    """One layer of the transformer.

    Args:
        dim: Width D of the stream.
        num_heads: Attention heads; `dim` is a multiple of it.
        pattern: What each token sees.
        dropout: Share of each branch's outputs dropped in training, 0 to 1.
        activation: Of the perceptron; see `MLP`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        pattern: Visible,
        dropout: float = 0.0,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = JointAttention(dim, num_heads=num_heads, pattern=pattern)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden_dim=4 * dim, activation=activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Run the whole stream through the block."""
        if is_fused(x) and not (self.training and self.dropout.p):
            x, normed = add_norm(x, None, None, self.attention_norm)
            branch, bias = self.attention.without_bias(normed)
            x, normed = add_norm(x, branch, bias, self.mlp_norm)
            return add_bias(x, *self.mlp.without_bias(normed))
        return self._mix(x, self.attention(self.attention_norm(x)))

    def prefill(self, x: Float[Tensor, "B T D"], cache: LayerCache) -> Float[Tensor, "B T D"]:
        """Run the stream's first T tokens through the block and fill the cache."""
        return self._mix(x, self.attention.prefill(self.attention_norm(x), cache))

    def decode(
        self, x: Float[Tensor, "B 1 D"], cache: LayerCache, index: Index
    ) -> Float[Tensor, "B 1 D"]:
        """Run token `index` after the prompt through the block."""
        return self._mix(x, self.attention.decode(self.attention_norm(x), cache, index))

    def _mix(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class MLP(nn.Module):
    """A linear layer out, an activation, and a linear layer back, for each token by itself.

    Args:
        dim: Width D of the stream.
        hidden_dim: Width between the two layers.
        activation: "gelu", or its approximation "quick_gelu", with which OpenAI trained CLIP.
    """

    def __init__(self, dim: int, *, hidden_dim: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden_dim)
        self.activation = nn.GELU() if activation == "gelu" else QuickGELU()
        self.projection = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Transform each token."""
        return self.projection(self.activation(self.hidden(x)))

    def without_bias(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, " D"]]:
        """The same for `fused` functions: what it gives, less the last bias, and that."""
        if isinstance(self.activation, nn.GELU):
            activated = bias_gelu(product(x, self.hidden.weight), self.hidden.bias)
        else:
            activated = self.activation(self.hidden(x))
        return product(activated, self.projection.weight), self.projection.bias


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x)."""

    def forward(self, x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Transform each number."""
        return x * (1.702 * x).sigmoid()


def init_weights(model: nn.Module, *, num_layers: int) -> None:
    """Start a transformer's linear layers and embeddings: normal, of deviation 0.02; biases zero.

    What a block adds to the stream starts smaller, by sqrt(2 num_layers), so that the stream's
    variance does not grow with depth.

    Args:
        model: Whatever holds the blocks; all its linear layers and embeddings are meant.
        num_layers: Its blocks.
    """
    residual_std = _INIT_STD / (2 * num_layers) ** 0.5
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            is_residual = name.endswith(".projection")
            nn.init.normal_(module.weight, std=residual_std if is_residual else _INIT_STD)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
