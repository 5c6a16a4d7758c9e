"""The transformer's step of sampling, compiled for a CPU.

    decoder = CompiledDecoder(model, cache, rows)    # row r goes on from prompt rows[r]
    logits = decoder(codes, index)                   # R V

It computes what `TextToImageTransformer.decode` and `image_logits` do, which are the reference, in
one compiled function a token instead of hundreds of operations of torch. Weights are kept in the
order in which they are read, and in fewer bits where that is asked for, keys and values in bfloat16
then; all else is float32. These lie in panels too, so that scores and means are products like any
other.

A row's logits have the same bits whichever rows stand beside it, whatever the number of threads.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from armchair.core.threads import Threads, as_array
from armchair.models.sequence.compiled_step import GROUP, Layout, Tables, step
from armchair.models.sequence.text_to_image import TextToImageTransformer
from armchair.nn.amx import BLOCK, TILE, apart, has_amx
from armchair.nn.blocks import TransformerBlock
from armchair.nn.kv_cache import KVCache, slots_of
from armchair.nn.masks import AttentionPattern
from armchair.nn.panels import PANEL, filled, in_panels, pack_for_tiles, pack_linear


class _Memory:
    """Tensors in one buffer, each beginning at a multiple of 64 bytes."""

    def __init__(self) -> None:
        self.starts: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._size = 0

    def reserve(self, name: str, *shape: int) -> int:
        self.starts[name], self._shapes[name] = self._size, shape
        self._size += filled(math.prod(shape))
        return self.starts[name]

    def allocate(self, dtype: torch.dtype) -> Tensor:
        self._buffer = torch.zeros(self._size, dtype=dtype)
        return self._buffer

    def __getitem__(self, name: str) -> Tensor:
        start, shape = self.starts[name], self._shapes[name]
        return self._buffer[start : start + math.prod(shape)].view(shape)


class CompiledDecoder:
    """One step after the other, for rows that go on from prompts.

    Args:
        model: On a CPU; its weights are copied.
        cache: Of the prompts, which have been run; it is copied too.
        rows: For each row its prompt.
        weight_dtype: What weights are kept in: float32, bfloat16, or int8; see `pack_linear`.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: TextToImageTransformer,
        cache: KVCache,
        rows: Int[Tensor, " R"],
        *,
        weight_dtype: torch.dtype = torch.float32,
    ) -> None:
        self._threads = Threads(torch.get_num_threads())
        is_tiled = weight_dtype == torch.bfloat16 and has_amx() and model.config.dim % BLOCK == 0
        sizes = _sizes(model, cache, len(rows), self._threads.count)
        blocks = list(cast(Iterable[TransformerBlock], model.blocks))
        linears = [
            [block.attention.qkv for block in blocks],
            [block.attention.projection for block in blocks],
            [block.mlp.hidden for block in blocks],
            [block.mlp.projection for block in blocks],
            [model.image_head],
        ]
        memory, past, weights = _Memory(), _Memory(), _Memory()
        _reserve(
            memory, past, sizes, model, [layer.slots.count for layer in cache.layers], is_tiled
        )
        of_linears = []
        for name, group in enumerate(linears):
            inputs, outputs = group[0].in_features, filled(group[0].out_features)
            start = weights.reserve(str(name), len(group), outputs // PANEL, inputs, PANEL)
            factors = memory.reserve(f"factors {name}", len(group), 2, outputs)
            of_linears.append([start, factors, inputs, outputs // PANEL])
        is_exact = weight_dtype == torch.float32
        self._numbers = memory.allocate(torch.float32)
        self._past = past.allocate(torch.float32 if is_exact else torch.bfloat16)
        self._weights = weights.allocate(weight_dtype)
        for name, group in enumerate(linears):
            for layer, linear in enumerate(group):
                pack = pack_for_tiles if is_tiled else pack_linear
                panels, factors = pack(linear, weight_dtype)
                weights[str(name)][layer] = panels
                memory[f"factors {name}"][layer] = factors
        _fill(memory, past, model, cache, rows)
        slots = [layer.slots for layer in cache.layers]
        tokens, hidden = _seen(model.patterns)
        layers = [
            [past.starts[f"keys {i}"], past.starts[f"values {i}"], filled(layer.count)]
            for i, layer in enumerate(slots)
        ]
        groups = _groups(rows.tolist())
        vocab_size = model.config.image_vocab_size
        self._tables = Tables(
            np.array(of_linears),
            groups,
            np.array(layers),
            tokens,
            hidden,
            vocab_size,
            filled(vocab_size),
        )
        starts = {**memory.starts, **past.starts}
        names = [name for name in Layout._fields if name not in (*sizes, "is_tiled")]
        self._layout = Layout(**sizes, is_tiled=is_tiled, **{name: starts[name] for name in names})
        self._logits = memory["logits"][:, :vocab_size]
        self._eps = np.float32(model.norm.eps)

    def __call__(self, codes: Int[Tensor, " R"], index: int) -> Float[Tensor, "R V"]:
        """Take the image tokens at raster position `index` in and predict the next ones."""
        self.run(step, codes.numpy(), index)
        return self._logits.clone()

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a compiled function that takes steps.

        Args:
            function: With the arguments of `step`.
            *arguments: What comes before the memory.
        """
        arrays = (as_array(part) for part in (self._numbers, self._past, self._weights))
        self._threads.run(function, *arguments, *arrays, self._layout, self._tables, self._eps)


def _sizes(
    model: TextToImageTransformer, cache: KVCache, num_rows: int, num_threads: int
) -> dict[str, int]:
    config = model.config
    return {
        "num_rows": num_rows,
        "num_threads": num_threads,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "head_dim": config.dim // config.num_heads,
        "dim": config.dim,
        "num_prompts": cache.layers[0].image.shape[1],
        "text_length": config.text_length,
        "longest": filled(max(layer.slots.count for layer in cache.layers)),
    }


def _reserve(
    memory: _Memory,
    past: _Memory,
    sizes: dict[str, int],
    model: TextToImageTransformer,
    slots: Sequence[int],
    is_tiled: bool,
) -> None:
    """Room for all but the factors of linear layers."""
    rows, threads, layers, heads, head_dim, dim, prompts, text, longest = sizes.values()
    vocab_size = model.config.image_vocab_size
    memory.reserve("codes", vocab_size, dim)
    memory.reserve("places", model.config.image_length, dim)
    memory.reserve("norms", layers, 4, dim)
    memory.reserve("last_norm", 2, dim)
    past.reserve("prompt_keys", layers, prompts, heads, filled(text) // PANEL, head_dim, PANEL)
    past.reserve(
        "prompt_values", layers, prompts, heads, filled(head_dim) // PANEL, filled(text), PANEL
    )
    for layer, count in enumerate(map(filled, slots)):
        past.reserve(f"keys {layer}", rows, heads, count // PANEL, head_dim, PANEL)
        past.reserve(f"values {layer}", rows, heads, filled(head_dim) // PANEL, count, PANEL)
    memory.reserve("x", rows, dim)
    memory.reserve("normed", threads, rows, dim)
    memory.reserve("qkv", rows, filled(3 * dim))
    memory.reserve("mixed", rows, dim)
    memory.reserve("added", rows, filled(dim))
    memory.reserve("hidden", rows, filled(4 * dim))
    memory.reserve("activated", rows, 4 * dim)
    memory.reserve("scores", threads, GROUP, filled(text) + longest)
    memory.reserve("means", threads, GROUP + 1, filled(head_dim))
    memory.reserve("logits", rows, filled(vocab_size))
    tiled = threads if is_tiled else 0
    memory.reserve("parts", tiled, rows + TILE, apart(4 * dim))
    memory.reserve("square", tiled, 2, BLOCK, BLOCK)


def _fill(
    memory: _Memory,
    past: _Memory,
    model: TextToImageTransformer,
    cache: KVCache,
    rows: Int[Tensor, " R"],
) -> None:
    """All weights but those of linear layers, and the past."""
    memory["codes"].copy_(model.image_embedding.token.weight)
    memory["places"].copy_(model.image_embedding.places())
    for layer, block in enumerate(cast(Iterable[TransformerBlock], model.blocks)):
        norms = (block.attention_norm, block.mlp_norm)
        vectors: list[Tensor] = [vector for norm in norms for vector in (norm.weight, norm.bias)]
        torch.stack(vectors, out=memory["norms"][layer])
    torch.stack([model.norm.weight, model.norm.bias], out=memory["last_norm"])
    for number, layer in enumerate(cache.layers):
        keys, values = layer.prompts[0]
        past["prompt_keys"][number].copy_(in_panels(keys))
        past["prompt_values"][number].copy_(_value_panels(values))
        keys, values = layer.image
        for row, prompt in enumerate(rows.tolist()):
            past[f"keys {number}"][row].copy_(in_panels(keys[prompt]))
            past[f"values {number}"][row].copy_(_value_panels(values[prompt]))


def _value_panels(values: Float[Tensor, "*R S K"]) -> Float[Tensor, "*R P S16 16"]:
    values = F.pad(values, (0, 0, 0, -values.shape[-2] % PANEL))
    return in_panels(values.mT)


def _groups(prompts: Sequence[int]) -> Any:
    """Rows that attend together, as even as can be; see `Tables`."""
    groups, first = [], 0
    for prompt, same in itertools.groupby(prompts):
        count = len(list(same))
        parts = -(-count // GROUP)
        edges = [first + count * part // parts for part in range(parts + 1)]
        groups += [[start, stop - start, prompt] for start, stop in itertools.pairwise(edges)]
        first += count
    return np.array(groups)


@functools.lru_cache(maxsize=8)
def _seen(patterns: tuple[AttentionPattern, ...]) -> tuple[Any, Any]:
    """The tokens' table, and the slots that they do not see; see `Tables`. Never written to."""
    hidden: list[int] = []
    tables: dict[AttentionPattern, list[list[int]]] = {}
    for pattern in patterns:
        if pattern in tables:
            continue
        slots, rows = slots_of(pattern, torch.device("cpu")), tables.setdefault(pattern, [])
        for slot, seen in zip(slots.of, slots.read, strict=True):
            numbers = range(seen.start, seen.stop) if isinstance(seen, slice) else seen.tolist()
            start, stop, before = min(numbers), max(numbers) + 1, len(hidden)
            if stop - start > len(numbers):
                hidden.extend(sorted(set(range(start, stop)).difference(numbers)))
            rows.append([slot, start, stop, before, len(hidden)])
    return np.array([tables[pattern] for pattern in patterns]), np.array(hidden, dtype=np.int64)
