"""Keys and values kept from one sampled token to the next.

Every layer has its own two buffers, made once at full length and written in place, so that a step
copies one token and nothing else. A step then reads only what its layer's pattern lets the token
see; the positions are read off the dense mask, so they cannot disagree with it.

    prompt = KVCache.allocate(patterns, batch_size=1, num_heads=8, head_dim=32)
    ...                                          # a prefill writes the prompt into it
    cache = prompt.expand(torch.zeros(16, dtype=torch.long))     # 16 candidates of that prompt
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.nn.masks import AttentionPattern, dense_mask


class LayerCache:
    """The keys and values of one layer, for every position of the stream.

    Args:
        keys: Buffer to own, B N L K.
        values: Buffer to own, B N L K.
        visible: For each position of the stream, what it sees: a count n for the first n
            positions, or their indices.
    """

    def __init__(
        self,
        keys: Float[Tensor, "B N L K"],
        values: Float[Tensor, "B N L K"],
        visible: Sequence[int | Tensor],
    ) -> None:
        self.keys = keys
        self.values = values
        self._visible = visible

    def write(
        self, start: int, keys: Float[Tensor, "B N T K"], values: Float[Tensor, "B N T K"]
    ) -> None:
        """Store the keys and values of T tokens from stream position `start` on."""
        self.keys[:, :, start : start + keys.shape[2]] = keys
        self.values[:, :, start : start + keys.shape[2]] = values

    def read(self, position: int) -> tuple[Float[Tensor, "B N S K"], Float[Tensor, "B N S K"]]:
        """The keys and values that the token at `position` sees, its own among them."""
        visible = self._visible[position]
        if isinstance(visible, int):
            return self.keys[:, :, :visible], self.values[:, :, :visible]
        return self.keys.index_select(2, visible), self.values.index_select(2, visible)

    def expand(self, rows: Int[Tensor, " C"]) -> LayerCache:
        """A cache of its own for C candidates; candidate c starts from row `rows[c]`."""
        return LayerCache(self.keys[rows], self.values[rows], self._visible)


class KVCache:
    """One `LayerCache` a layer.

    Args:
        layers: The layers' caches, first layer first.
    """

    def __init__(self, layers: Sequence[LayerCache]) -> None:
        self.layers = tuple(layers)

    @classmethod
    def allocate(
        cls,
        patterns: Sequence[AttentionPattern],
        *,
        batch_size: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """Make empty buffers.

        Args:
            patterns: The pattern of every layer, all over the same stream.
            batch_size: Rows B.
            num_heads: Heads N of every layer.
            head_dim: Width K of a head.
            dtype: Of the buffers.
            device: Of the buffers.
        """
        visible = {pattern: _visible_positions(pattern, device) for pattern in set(patterns)}
        shape = (batch_size, num_heads, patterns[0].length, head_dim)
        return cls(
            [
                LayerCache(
                    torch.zeros(shape, dtype=dtype, device=device),
                    torch.zeros(shape, dtype=dtype, device=device),
                    visible[pattern],
                )
                for pattern in patterns
            ]
        )

    def expand(self, rows: Int[Tensor, " C"]) -> KVCache:
        """A cache of its own for C candidates; candidate c starts from row `rows[c]`."""
        return KVCache([layer.expand(rows) for layer in self.layers])


def _visible_positions(pattern: AttentionPattern, device: torch.device | str) -> list[int | Tensor]:
    """What every position sees: the count where it is a prefix, the indices where it is not."""
    visible: list[int | Tensor] = []
    for row in dense_mask(pattern):
        indices = row.nonzero().flatten()
        is_prefix = int(indices[-1]) == len(indices) - 1
        visible.append(len(indices) if is_prefix else indices.to(device))
    return visible
