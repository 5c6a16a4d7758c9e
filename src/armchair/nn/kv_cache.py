"""Keys and values kept from one sampled token to the next, no more of them than are needed.

A prompt's keys and values are kept once, however many pictures are drawn from it, and all of them
read it in one matrix product. Of the image every row keeps what its layers' patterns still let it
see, each token in a slot: a row layer needs W + 1 slots, whatever the picture's size (W is the side
of the grid), a convolution its window, and a column layer has its columns one after the other. What
a token sees then lies side by side, and a step copies one token's keys and values and nothing else.

A token's number is an int, or a tensor of one number, with which a step is the same operations for
every token: the slots that a token does not see are then read too, and count for nothing. That is
for a GPU, where operations cost more than what they read, and one recorded step serves all tokens.

    prompts = KVCache.allocate(patterns, num_prompts=1, num_heads=8, head_dim=32)
    ...                                          # a prefill writes the prompts into it
    cache = prompts.expand(torch.zeros(16, dtype=torch.long))     # 16 candidates of the first
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from armchair.nn.masks import AttentionPattern, dense_mask

_ROWS_MULTIPLE = 8

Index = int | Int[Tensor, "1"]
"""The number of a token after the prompt; see the top of this file for when it is a tensor."""


@dataclass(frozen=True)
class Slots:
    """Where a layer keeps the keys and values of tokens, and which of them each token reads.

    Attributes:
        count: Slots S.
        of: The slot of each token, in the order of the tokens; a later one may take an earlier
            one's.
        read: For each token, once it is in its slot: the slots it sees, side by side or not.
        device: Where the numbers of slots are wanted.
    """

    count: int
    of: Sequence[int]
    read: Sequence[slice | Tensor]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @functools.cached_property
    def tables(self) -> tuple[Int[Tensor, " L"], Bool[Tensor, "L S"]]:
        """The slot of each of L tokens, and for each the slots that it does not see."""
        hidden = torch.ones(len(self.of), self.count, dtype=torch.bool, device="cpu")
        for token, seen in enumerate(self.read):
            hidden[token, seen if isinstance(seen, slice) else seen.cpu()] = False
        return torch.tensor(self.of, device=self.device), hidden.to(self.device)


@functools.lru_cache(maxsize=64)
def slots_of(pattern: AttentionPattern, device: torch.device) -> Slots:
    """The slots of a layer's image tokens.

    Args:
        pattern: What the layer lets each token see.
        device: Where to put the numbers of slots that do not lie side by side.
    """
    side, length = pattern.grid_size, pattern.image_length
    text = pattern.text_length
    seen = [row.nonzero().flatten() for row in dense_mask(pattern)[text:, text:]]
    if pattern.kind == "column":
        of = [index % side * side + index // side for index in range(length)]
        count = length
    else:
        count = max(index + 1 - int(tokens[0]) for index, tokens in enumerate(seen))
        of = [index % count for index in range(length)]
    place = torch.tensor(of, device="cpu")
    read = [_side_by_side(place[tokens].sort().values, device) for tokens in seen]
    return Slots(count, of, read, device)


def _side_by_side(numbers: Int[Tensor, " S"], device: torch.device) -> slice | Tensor:
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return slice(first, last + 1)
    return numbers.to(device)


def plain_slots(length: int) -> Slots:
    """The slots of a plain stream of so many tokens, in which each sees all that came before."""
    return Slots(length, range(length), [slice(0, index + 1) for index in range(length)])


class Sharing:
    """Which rows share a prompt, so that they can be multiplied with it together.

    A matrix product may add up in another order for another number of rows, but does not for
    multiples of 8; the rows of each prompt are therefore filled up to one, and prompts of as many
    rows go together.

    Args:
        rows: The prompt of each row.
        num_prompts: How many there are.
    """

    def __init__(self, rows: Int[Tensor, " R"], num_prompts: int) -> None:
        members: dict[int, list[tuple[int, list[int]]]] = {}
        for prompt in range(num_prompts):
            own = (rows == prompt).nonzero().flatten().tolist()
            if own:
                filled = own + own[:1] * (-len(own) % _ROWS_MULTIPLE)
                members.setdefault(len(filled), []).append((prompt, filled))
        groups = list(members.values())
        device = rows.device
        self.prompts = [torch.tensor([p for p, _ in group], device=device) for group in groups]
        self._members = [torch.tensor([own for _, own in group], device=device) for group in groups]
        order = torch.cat([members.flatten() for members in self._members])
        in_order = torch.equal(order, torch.arange(len(rows), device=device))
        self._in_order = in_order and len(groups) == 1
        places = torch.empty(len(rows), dtype=torch.long, device=device)
        places[order] = torch.arange(len(order), device=device)
        self._places = places

    def split(self, x: Float[Tensor, "R N D"]) -> list[Tensor]:
        """The rows of each group of P prompts, G for every prompt: P G N D."""
        if self._in_order:
            return [x.unflatten(0, self._members[0].shape)]
        return [x[members] for members in self._members]

    def join(self, parts: Sequence[Tensor]) -> Float[Tensor, "R N D"]:
        """The rows in their own order again."""
        if self._in_order:
            return parts[0].flatten(0, 1)
        return torch.cat([part.flatten(0, 1) for part in parts])[self._places]


class LayerCache:
    """The keys and values of one layer.

    Args:
        prompts: Keys and values of prompts, 2 P N T K; one buffer for each group of `sharing`.
        image: Keys and values of the rows' own tokens, 2 R N S K.
        slots: Where those are kept.
        sharing: Which rows share a prompt; None where each row has its own.
    """

    def __init__(
        self,
        prompts: Sequence[Tensor],
        image: Float[Tensor, "2 R N S K"],
        slots: Slots,
        sharing: Sharing | None = None,
    ) -> None:
        self.prompts = tuple(prompts)
        self.image = image
        self.slots = slots
        self._sharing = sharing

    def write(self, keys_values: Float[Tensor, "2 P N L K"]) -> None:
        """Store those of the stream's first L tokens: all of the prompts, and what follows them."""
        (prompt,) = self.prompts
        length = prompt.shape[3]
        prompt.copy_(keys_values[:, :, :, :length])
        count = keys_values.shape[3] - length
        for index in range(max(0, count - self.slots.count), count):
            self.image[:, :, :, self.slots.of[index]] = keys_values[:, :, :, length + index]

    def append(self, index: Index, keys_values: Float[Tensor, "2 R N K"]) -> None:
        """Store those of each row's own token number `index`."""
        if isinstance(index, Tensor):
            slot = self.slots.tables[0][index]
            self.image.index_copy_(3, slot, keys_values.unsqueeze(3).to(self.image.dtype))
        else:
            self.image[:, :, :, self.slots.of[index]] = keys_values

    def attend(self, queries: Float[Tensor, "R N K"], index: Index) -> Float[Tensor, "R N K"]:
        """Attend from each row's own token `index`, whose keys and values are stored.

        Plain products: scaled_dot_product_attention with a single query splits its sums between
        the threads, so that a row's last bits would depend on how many rows there are.
        """
        keys, values = self._read(index)  # (R N) S K
        own = _scores(queries.reshape(len(keys), 1, -1), keys).view(*queries.shape[:2], -1)
        if isinstance(index, Tensor):
            own = own.masked_fill(self.slots.tables[1][index], float("-inf"))
        of_prompt = self._prompt_scores(queries)
        scores = torch.cat([of_prompt, own], dim=-1)
        weights = scores.float().softmax(dim=-1).to(values.dtype)
        length = of_prompt.shape[-1]
        of_own = torch.bmm(weights[..., length:].view(len(keys), 1, -1), values)
        return self._prompt_mean(weights[..., :length]) + of_own.view(queries.shape)

    def expand(self, rows: Int[Tensor, " R"], sharing: Sharing) -> LayerCache:
        """A cache for R candidates, of which candidate r goes on from prompt `rows[r]`."""
        (prompt,) = self.prompts
        prompts = [prompt[:, own] for own in sharing.prompts]
        return LayerCache(prompts, self.image[:, rows], self.slots, sharing)

    def _read(self, index: Index) -> tuple[Tensor, ...]:
        flat = self.image.flatten(1, 2)
        if isinstance(index, Tensor):
            return flat.unbind(0)
        seen = self.slots.read[index]
        read = flat[:, :, seen] if isinstance(seen, slice) else flat.index_select(2, seen)
        return read.unbind(0)

    def _prompt_scores(self, queries: Float[Tensor, "R N K"]) -> Float[Tensor, "R N T"]:
        if self._sharing is None:
            return _by_head(_scores, queries[:, None], self.prompts[0][0])[:, 0]
        parts = zip(self._sharing.split(queries), self.prompts, strict=True)
        return self._sharing.join([_by_head(_scores, part, prompt[0]) for part, prompt in parts])

    def _prompt_mean(self, weights: Float[Tensor, "R N T"]) -> Float[Tensor, "R N K"]:
        if self._sharing is None:
            return _by_head(torch.bmm, weights[:, None], self.prompts[0][1])[:, 0]
        parts = zip(self._sharing.split(weights), self.prompts, strict=True)
        return self._sharing.join(
            [_by_head(torch.bmm, part, values) for part, (_, values) in parts]
        )


def _scores(queries: Float[Tensor, "B G K"], keys: Float[Tensor, "B S K"]) -> Tensor:
    """Scaled dot products, B G S."""
    nothing = queries.new_empty(1, 1, 1)
    scale = queries.shape[-1] ** -0.5
    return torch.baddbmm(nothing, queries, keys.mT, beta=0, alpha=scale)


def _by_head(
    product: Callable[[Tensor, Tensor], Tensor],
    rows: Float[Tensor, "P G N D"],
    of_prompts: Float[Tensor, "P N T K"],
) -> Float[Tensor, "P G N E"]:
    """A product of each head's rows with the keys or values of its prompt."""
    heads = of_prompts.shape[:2]
    by_head = product(rows.transpose(1, 2).flatten(0, 1), of_prompts.flatten(0, 1))
    return by_head.unflatten(0, heads).transpose(1, 2)


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
        num_prompts: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> KVCache:
        """Make empty buffers for prompts and one row of each.

        Args:
            patterns: The pattern of every layer, all over the same stream.
            num_prompts: Prompts P.
            num_heads: Heads N of every layer.
            head_dim: Width K of a head.
            dtype: Of the buffers.
            device: Of the buffers.
        """
        layers = []
        for pattern in patterns:
            slots = slots_of(pattern, torch.device(device))
            prompt, image = (
                torch.zeros(2, num_prompts, num_heads, length, head_dim, dtype=dtype, device=device)
                for length in (pattern.text_length, slots.count)
            )
            layers.append(LayerCache([prompt], image, slots))
        return cls(layers)

    @property
    def num_bytes(self) -> int:
        """Of all buffers."""
        buffers = [buffer for layer in self.layers for buffer in (*layer.prompts, layer.image)]
        return sum(buffer.nbytes for buffer in buffers)

    def of_prompt(self, number: int) -> KVCache:
        """The part of one prompt, before it is expanded; the same memory."""
        only = slice(number, number + 1)
        return KVCache(
            [
                LayerCache([layer.prompts[0][:, only]], layer.image[:, only], layer.slots)
                for layer in self.layers
            ]
        )

    def expand(self, rows: Int[Tensor, " R"]) -> KVCache:
        """A cache for R candidates, of which candidate r goes on from prompt `rows[r]`."""
        sharing = Sharing(rows, self.layers[0].image.shape[1])
        return KVCache([layer.expand(rows, sharing) for layer in self.layers])
