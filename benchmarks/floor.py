"""What the machine can do at best: the yardstick that fractions of the floor are of."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from contestants.shapes import Shape
from timing import seconds

from armchair.models.sequence.text_to_image import TextToImageConfig
from armchair.nn.masks import dense_mask, layer_patterns

_REPEATS = 5
_COLUMNS = 1024  # of the matrix that is read


def measure_floor(dtypes: list[torch.dtype]) -> dict[str, float]:
    """Torch's products of large matrices in operations a second; bytes of memory and cache.

    A multiplication and an addition are two operations. Bytes are copied, which moves each of them
    twice, or read by the product of a matrix and a vector: whichever goes faster.
    """
    found = {}
    for dtype in dtypes:
        side = 2048
        one, other = (torch.randn(side, side).to(dtype) for _ in range(2))
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 / _best(lambda a=one, b=other: a @ b)
    for name, count, times in (("memory", 1 << 28, 1), ("cache", 1 << 17, 2048)):
        source = torch.zeros(count, dtype=torch.uint8)
        target = torch.empty_like(source)
        copied = 2 * count * times / _best(functools.partial(_copy, source, target, times))
        read = count * times / _best(functools.partial(_read, source.view(torch.float32), times))
        found[name] = max(copied, read)
    return found


def drawing_seconds(
    shape: Shape, batch: int, floor: dict[str, float], weight_dtype: torch.dtype
) -> float:
    """The least time for one token of each of `batch` pictures.

    Every weight is read once, or multiplied with every row as fast as the machine multiplies in any
    precision, whichever takes longer; the cache and everything else count as free.
    """
    weights = _weights(shape)
    read = weights * weight_dtype.itemsize / floor["memory"]
    multiplied = 2 * weights * batch / max(floor["float32"], floor.get("bfloat16", 0))
    return max(read, multiplied)


def training_seconds(
    shape: Shape, batch: int, floor: dict[str, float], dtype: torch.dtype
) -> float:
    """The least time for an update: products, forward and twice backward.

    These are products with weights, where each head predicts its own tokens alone, and attention's
    over what the paper's pattern sees. Everything else counts as free.
    """
    layers = _weights(shape) - shape.dim * shape.image_vocab
    heads = shape.dim * (
        shape.image_vocab * shape.image_length + shape.text_vocab * shape.text_length
    )
    config = TextToImageConfig(**shape.config)
    sizes = {"text_length": shape.text_length, "grid_size": shape.grid_size}
    patterns = layer_patterns(config.attention, shape.num_layers, **sizes)
    seen = sum(int(dense_mask(pattern).sum()) for pattern in patterns)
    operations = 6 * batch * (layers * shape.length + heads + 2 * shape.dim * seen)
    return operations / floor[str(dtype).removeprefix("torch.")]


def _weights(shape: Shape) -> int:
    """Of the layers, and of the head over image codes."""
    return 12 * shape.num_layers * shape.dim**2 + shape.dim * shape.image_vocab


def _copy(source: torch.Tensor, target: torch.Tensor, times: int) -> None:
    for _ in range(times):
        target.copy_(source)


def _read(source: torch.Tensor, times: int) -> None:
    matrix = source.view(-1, _COLUMNS)
    vector = torch.ones(_COLUMNS)
    for _ in range(times):
        matrix @ vector


def _best(run: Callable[[], object]) -> float:
    run()
    return min(seconds(run) for _ in range(_REPEATS))
