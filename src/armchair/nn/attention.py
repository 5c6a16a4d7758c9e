"""Self-attention: over the joint stream of text and image tokens, or over a plain one.

`dense_attention` is the reference: scaled dot products under the pattern's dense mask. On a CPU,
training goes through `blocked_attention`, which is tested against it; sampling goes through
`JointAttention.prefill` and `JointAttention.decode`, which keep keys and values in a cache.
`attend` is all that attention to everything, or to what came before, needs.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.device import COMPILED_DTYPES, product_dtype
from armchair.core.errors import ConfigError
from armchair.nn.blocked_attention import blocked_attention
from armchair.nn.kv_cache import Index, LayerCache
from armchair.nn.linear import product
from armchair.nn.masks import AttentionPattern, dense_mask

Visible = AttentionPattern | Literal["causal", "all"]
"""What a token sees: a pattern of the joint stream; of a plain one, what came before it, or all."""


def dense_attention(
    qkv: Float[Tensor, "B T D3"], pattern: Visible, *, num_heads: int
) -> Float[Tensor, "B T D"]:
    """Attend under the dense mask; T tokens from the stream's beginning, or all of it.

    Args:
        qkv: Queries, keys, and values, one after the other in the last dimension.
        pattern: What each token sees.
        num_heads: Heads N; D is a multiple of it.

    Returns:
        The heads' outputs side by side.
    """
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # B N T K each
    if isinstance(pattern, AttentionPattern) and pattern.kind != "full":
        length = qkv.shape[1]
        mask = _mask_on(pattern, qkv.device)[:length, :length]
        outputs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:
        outputs = attend(q, k, v, is_causal=pattern != "all")
    return outputs.transpose(1, 2).flatten(2)


def attend(
    q: Float[Tensor, "B N T K"],
    k: Float[Tensor, "B N S K"],
    v: Float[Tensor, "B N S K"],
    *,
    is_causal: bool = False,
) -> Float[Tensor, "B N T K"]:
    """Scaled dot-product attention; on a CPU that learns by plain products, which are faster.

    With 2 cores and AVX512-BF16 the decoder of dalle2-scenes trains 1.2 times as fast as with
    scaled_dot_product_attention, whose backward pass took a quarter of each update. The price is
    memory: the probabilities are kept for it.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        is_causal: Hide the keys that come after a query; there are as many keys as queries.

    Returns:
        The mean of the values under each query's softmax.
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.mT  # B N T S
        if is_causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device="cpu").triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return scores.softmax(dim=-1) @ v


@functools.lru_cache(maxsize=64)
def _mask_on(pattern: AttentionPattern, device: torch.device) -> Bool[Tensor, "L L"]:
    """The dense mask, made once. Shared by all who ask: never written to."""
    return dense_mask(pattern).to(device)


class JointAttention(nn.Module):
    """Multi-head attention with one projection to queries, keys, and values, and one back.

    Args:
        dim: Width D of the stream, a multiple of `num_heads`.
        num_heads: Heads N.
        pattern: What each token sees.
    """

    def __init__(self, dim: int, *, num_heads: int, pattern: Visible) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError("dim", got=dim, expected=f"a multiple of num_heads = {num_heads}")
        self.num_heads = num_heads
        self.pattern: Visible = pattern
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Attend over the whole stream."""
        return self.projection(self._outputs(x))

    def without_bias(
        self, x: Float[Tensor, "B L D"]
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, " D"]]:
        """The same for `fused` functions: what it gives, less the last bias, and that."""
        return product(self._outputs(x), self.projection.weight), self.projection.bias

    def _outputs(self, x: Tensor) -> Tensor:
        in_blocks = x.device.type == "cpu" and product_dtype(x.device, x.dtype) in COMPILED_DTYPES
        if isinstance(self.pattern, AttentionPattern) and in_blocks:
            qkv = product(x, self.qkv.weight)
            return blocked_attention(
                qkv, self.pattern, num_heads=self.num_heads, bias=self.qkv.bias
            )
        return dense_attention(self.qkv(x), self.pattern, num_heads=self.num_heads)

    def prefill(self, x: Float[Tensor, "B T D"], cache: LayerCache) -> Float[Tensor, "B T D"]:
        """Attend over the stream's first T tokens and keep their keys and values."""
        qkv = self.qkv(x)
        cache.write(qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)[1:])
        return self.projection(dense_attention(qkv, self.pattern, num_heads=self.num_heads))

    def decode(
        self, x: Float[Tensor, "B 1 D"], cache: LayerCache, index: Index
    ) -> Float[Tensor, "B 1 D"]:
        """Attend from token `index` after the prompt, whose past is in the cache."""
        qkv = self.qkv(x).view(len(x), 3, self.num_heads, -1).transpose(0, 1)  # 3 B N K
        cache.append(index, qkv[1:])
        return self.projection(cache.attend(qkv[0], index).flatten(1)[:, None])
