"""One step of sampling by the transformer as a compiled function; see `CompiledDecoder`.

    Threads(4).run(step, codes, index, memory, past, weights, layout, tables, eps)

All numbers lie in one array, all keys and values in another, and all weights of linear layers in a
third, so that a compiled function takes few arguments: compiling is paid for by the argument.
`Layout` and `Tables` say what begins where. Functions stand above those that call them.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from armchair.core.jit import borrowed, halves_of, jit, piece
from armchair.core.threads import meet
from armchair.core.vectors import LANES, as_bfloat16, load, load_first, prefetch, store, store_first
from armchair.nn.amx import BLOCK, TILE, apart, configure_tiles, multiply_tiles, release_tiles
from armchair.nn.compiled_functions import gelu, layer_norm, softmax, stored_in
from armchair.nn.panels import PANEL, multiply

_QKV, _PROJECTION, _HIDDEN, _MLP_PROJECTION, _HEAD = range(5)
_STAGES = 5  # of a layer
_LINE = 64  # bytes that memory gives at once
GROUP = 8  # rows that attend together at most


class Layout(NamedTuple):
    """Sizes, and where each kind of number begins."""

    num_rows: int  # R
    num_threads: int
    num_layers: int  # L
    num_heads: int  # N
    head_dim: int  # K
    dim: int  # D
    num_prompts: int  # P
    text_length: int  # T
    longest: int  # slots S of the layer that keeps most, in whole panels
    is_tiled: bool  # whether weights lie as the tiles of amx.py want them

    codes: int  # V D
    places: int  # S D
    norms: int  # L 4 D: gain and bias before the attention, and before the perceptron
    last_norm: int  # 2 D

    x: int  # R D, the stream
    normed: int  # threads R D
    qkv: int  # R 3D, filled up to whole panels, as all that products write
    mixed: int  # R D, what was attended to
    added: int  # R D
    hidden: int  # R 4D
    activated: int  # R 4D
    scores: int  # threads GROUP T+S
    means: int  # threads GROUP+1 K
    logits: int  # R V
    parts: int  # threads R D4, in whole tiles: what a product is of, and what that rounds away
    square: int  # threads 2 32 32

    prompt_keys: int  # of the past: L P N T/16 K 16
    prompt_values: int  # L P N K/16 T 16


class Tables(NamedTuple):
    """Where else to look."""

    linears: Any  # 5 4: where weights begin, and scales and biases; inputs K and panels P
    groups: Any  # G 3: neighbouring rows of one prompt: the first, how many, and the prompt
    layers: Any  # L 3: where keys of the past begin, R N S/16 K 16; values, R N K/16 S 16; slots S
    tokens: Any  # L S 5: own slot; sees slots from the second number to before the third, but ...
    hidden: Any  # ... not those that stand here from the fourth to before the fifth
    vocab_size: int  # logits of a row
    distance: int  # from the first of a row's to the next row's


@jit()
def _keep(qkv, keys, values, slots, slot, head, past, layout):
    """Write the key and the value of a row's head to its slot."""
    dim = layout.head_dim
    key = keys + slot // PANEL * dim * PANEL + slot % PANEL
    for i in range(dim):
        past[key + i * PANEL] = stored_in(past, qkv[layout.dim + head * dim + i])
        value = values + (i // PANEL * slots + slot) * PANEL + i % PANEL
        past[value] = stored_in(past, qkv[2 * layout.dim + head * dim + i])


@jit()
def _request(past, keys, values, slots, begin, panels, layout):
    """Ask for what a row's head is to read of its past: as many panels of slots, and from which."""
    first, last, line = begin * PANEL, (begin + panels) * PANEL, _LINE // past.itemsize
    for at in range(first * layout.head_dim, last * layout.head_dim, line):
        prefetch(past, keys + at)
    for i in range(0, layout.head_dim, PANEL):
        for at in range(first * PANEL, last * PANEL, line):
            prefetch(past, values + i * slots + at)


@jit()
def _attend_group(first, count, prompt, head, layer, index, thread, memory, past, layout, tables):
    """One head of rows of one prompt, whose part of the products they share."""
    text, dim = layout.text_length, layout.head_dim
    length, filled_dim = -(-text // PANEL) * PANEL, -(-dim // PANEL) * PANEL
    all_keys, all_values, slots = tables.layers[layer]
    slot, start, stop, hidden, hidden_stop = tables.tokens[layer, index]
    begin, panels = start // PANEL, (stop + PANEL - 1) // PANEL - start // PANEL
    distance, size = length + layout.longest, dim * PANEL
    scores = layout.scores + thread * GROUP * distance
    means = layout.means + thread * (GROUP + 1) * filled_dim
    own_means = means + GROUP * filled_dim
    total, seen = length + panels * PANEL, begin * PANEL
    of_prompt = (layer * layout.num_prompts + prompt) * layout.num_heads + head
    width = tables.linears[_QKV, 3] * PANEL
    queries = layout.qkv + first * width + head * dim
    item = first * layout.num_heads + head
    keys, values = all_keys + item * slots * dim, all_values + item * slots * filled_dim
    _request(past, keys, values, slots, begin, panels, layout)
    multiply(
        memory, queries, width, count, past, layout.prompt_keys + of_prompt * length * dim, size,
        length // PANEL, dim, memory, scores, distance,
    )  # fmt: skip

    for row in range(count):
        qkv = piece(memory, layout.qkv + (first + row) * width, width)
        next_keys = keys + layout.num_heads * slots * dim
        next_values = values + layout.num_heads * slots * filled_dim
        if row + 1 < count:
            _request(past, next_keys, next_values, slots, begin, panels, layout)
        _keep(qkv, keys, values, slots, slot, head, past, layout)
        of_row = scores + row * distance
        multiply(
            memory, queries + row * width, 0, 1, past, keys + begin * size, size, panels, dim,
            memory, of_row + length, 0,
        )  # fmt: skip
        weights = piece(memory, of_row, total)
        for i in range(text, length + start - seen):
            weights[i] = -np.inf
        for i in range(length + stop - seen, total):
            weights[i] = -np.inf
        for i in range(hidden, hidden_stop):
            weights[length + tables.hidden[i] - seen] = -np.inf
        softmax(weights, np.float32(1) / np.sqrt(np.float32(dim)))
        keys, values = next_keys, next_values

    multiply(
        memory, scores, distance, count, past,
        layout.prompt_values + of_prompt * length * filled_dim, length * PANEL,
        filled_dim // PANEL, length, memory, means, filled_dim,
    )  # fmt: skip
    for row in range(count):
        item = (first + row) * layout.num_heads + head
        multiply(
            memory, scores + row * distance + length, 0, 1, past,
            all_values + item * slots * filled_dim + seen * PANEL, slots * PANEL,
            filled_dim // PANEL, panels * PANEL, memory, own_means, 0,
        )  # fmt: skip
        mixed = piece(memory, layout.mixed + (first + row) * layout.dim + head * dim, dim)
        of_text, of_image = (
            piece(memory, means + row * filled_dim, dim),
            piece(memory, own_means, dim),
        )
        for i in range(dim):
            mixed[i] = of_text[i] + of_image[i]


@jit()
def _attend(layer, index, thread, memory, past, layout, tables):
    """A thread's heads and groups of rows: keep keys and values, attend to all that is seen."""
    groups = len(tables.groups)
    items = layout.num_heads * groups
    for item in range(
        items * thread // layout.num_threads, items * (thread + 1) // layout.num_threads
    ):
        first, count, prompt = tables.groups[item % groups]
        _attend_group(
            first, count, prompt, item // groups, layer, index, thread, memory, past, layout, tables
        )


@jit()
def _normalise(memory, layout, norm, normed, eps):
    """Each row of the stream; every thread for itself."""
    gain, bias = piece(memory, norm, layout.dim), piece(memory, norm + layout.dim, layout.dim)
    for row in range(layout.num_rows):
        x = piece(memory, layout.x + row * layout.dim, layout.dim)
        layer_norm(x, gain, bias, eps, piece(memory, normed + row * layout.dim, layout.dim))


@jit()
def _add_parts(memory, square, group, count, wide, bias, outputs, width):
    """Add the sums of rows' two parts and the bias, and write them to their rows."""
    for column in range(0, wide * TILE, LANES):
        of_columns = load(memory, bias + column)
        for i in range(count):
            at = square + i * BLOCK + column
            sums = load(memory, at) + load(memory, at + group * BLOCK)
            store(memory, outputs + i * width + column, sums + of_columns)


@jit()
def _multiply_in_tiles(
    memory, rows, inputs, weights, panel, count, bias, layout, thread, outputs, width
):
    """Rows, in two parts of bfloat16, times neighbouring panels of weights, and a bias.

    Eight rows or sixteen make a group, whose first parts and second parts are the rows of a block;
    of its sums each two are added, so that a row's have the same bits whichever stand beside it.
    """
    distance, num_rows = apart(inputs), layout.num_rows
    size = 2 * (num_rows + TILE) * apart(4 * layout.dim)
    parts = halves_of(memory, layout.parts + thread * size // 2, size)
    group = TILE // 2 if num_rows <= TILE // 2 else TILE
    for row in range(num_rows):
        to = (row // group * 2 * group + row % group) * distance
        for i in range(0, inputs, LANES):
            numbers = load(memory, rows + row * inputs + i)
            store(parts, to + i, numbers)
            store(parts, to + group * distance + i, numbers - as_bfloat16(numbers))
    # The sums of a block are added while the next one's product is under way.
    squares, before = layout.square + 2 * thread * BLOCK * BLOCK, 0
    left, panels, of_panels, to = 0, 0, 0, 0
    configure_tiles()
    for number in range(0, count, 2):
        wide = min(2, count - number)
        for row in range(0, num_rows, group):
            square = BLOCK * BLOCK - before
            multiply_tiles(
                2 * group // TILE, wide, False, parts, 2 * row * distance, distance, BLOCK,
                weights, panel + number * inputs * TILE, inputs * TILE, inputs // BLOCK, memory,
                squares + square, BLOCK,
            )  # fmt: skip
            _add_parts(memory, squares + before, group, left, panels, of_panels, to, width)
            before, left, panels = square, min(group, num_rows - row), wide
            of_panels, to = bias + number * TILE, outputs + row * width + number * TILE
    _add_parts(memory, squares + before, group, left, panels, of_panels, to, width)
    release_tiles()


@jit(fastmath={"contract"})
def _share(memory, weights, layout, tables, name, layer, thread, rows, outputs):
    """A thread's part of a linear layer; from which column to before which."""
    at, factors, inputs, count = tables.linears[name]
    start, stop = count * thread // layout.num_threads, count * (thread + 1) // layout.num_threads
    distance, width = inputs * PANEL, count * PANEL
    first, last = start * PANEL, stop * PANEL
    panel = at + (layer * count + start) * distance
    scales = factors + 2 * layer * width + first
    if layout.is_tiled:
        _multiply_in_tiles(
            memory, rows, inputs, weights, panel, stop - start, scales + width, layout, thread,
            outputs + first, width,
        )  # fmt: skip
        return first, last
    multiply(
        memory, rows, inputs, layout.num_rows, weights, panel, distance, stop - start, inputs,
        memory, outputs + first, width,
    )  # fmt: skip
    scale, bias = piece(memory, scales, last - first), piece(memory, scales + width, last - first)
    for row in range(layout.num_rows):
        output = piece(memory, outputs + row * width + first, last - first)
        for i in range(len(output)):
            output[i] = output[i] * scale[i] + bias[i]
    return first, last


@jit()
def _add(memory, layout, start, stop):
    """Some columns of what was computed to the stream."""
    width = layout.dim + -layout.dim % PANEL
    for row in range(layout.num_rows):
        x = piece(memory, layout.x + row * layout.dim + start, min(stop, layout.dim) - start)
        added = piece(memory, layout.added + row * width + start, stop - start)
        for i in range(len(x)):
            x[i] += added[i]


@jit()
def _stage(number, thread, index, memory, past, weights, layout, tables, eps):
    """A thread's part of a stage."""
    layer, stage = number // _STAGES, number % _STAGES
    dim, rows = layout.dim, layout.num_rows
    norm = layout.norms + layer * 4 * dim
    normed = layout.normed + thread * rows * dim
    if layer == layout.num_layers:
        _normalise(memory, layout, layout.last_norm, normed, eps)
        _share(memory, weights, layout, tables, _HEAD, 0, thread, normed, layout.logits)
    elif stage == 0:
        _normalise(memory, layout, norm, normed, eps)
        _share(memory, weights, layout, tables, _QKV, layer, thread, normed, layout.qkv)
    elif stage == 1:
        _attend(layer, index, thread, memory, past, layout, tables)
    elif stage == 2:
        start, stop = _share(
            memory, weights, layout, tables, _PROJECTION, layer, thread, layout.mixed, layout.added
        )
        _add(memory, layout, start, stop)
    elif stage == 3:
        _normalise(memory, layout, norm + 2 * dim, normed, eps)
        start, stop = _share(
            memory, weights, layout, tables, _HIDDEN, layer, thread, normed, layout.hidden
        )
        width = tables.linears[_HIDDEN, 3] * PANEL
        for row in range(rows):
            before = piece(memory, layout.hidden + row * width + start, stop - start)
            after = piece(
                memory, layout.activated + row * 4 * dim + start, min(stop, 4 * dim) - start
            )
            whole = len(after) - len(after) % LANES
            for i in range(0, whole, LANES):
                store(after, i, gelu(load(before, i)))
            if whole < len(after):
                left = len(after) - whole
                store_first(after, whole, left, gelu(load_first(before, whole, left)))
    else:
        start, stop = _share(
            memory, weights, layout, tables, _MLP_PROJECTION, layer, thread, layout.activated,
            layout.added,
        )  # fmt: skip
        _add(memory, layout, start, stop)


@jit()
def advance(
    codes, index, memory, past, weights, layout, tables, eps, thread, num_threads, counter, met
):
    """One token of each row: stage after stage, each shared by the threads.

    Args:
        codes: Of each row the token at `index`; the first thread's are read.
        index: Raster position.
        memory: See the top of this file, as for the next four.
        past: See there.
        weights: See there.
        layout: See there.
        tables: See there.
        eps: Of the norms.
        thread: Of this call.
        num_threads: How many share the work.
        counter: On which they meet.
        met: How often they have.

    Returns:
        How often they have met then, the last time with all logits written.
    """
    memory, past, weights, tables = borrowed((memory, past, weights, tables))
    if thread == 0:
        for row in range(layout.num_rows):
            x = piece(memory, layout.x + row * layout.dim, layout.dim)
            code = piece(memory, layout.codes + codes[row] * layout.dim, layout.dim)
            place = piece(memory, layout.places + index * layout.dim, layout.dim)
            for i in range(len(x)):
                x[i] = code[i] + place[i]
    met += 1
    meet(counter, num_threads * met)
    for number in range(_STAGES * layout.num_layers + 1):
        _stage(number, thread, index, memory, past, weights, layout, tables, eps)
        met += 1
        meet(counter, num_threads * met)
    return met


@jit()
def step(codes, index, memory, past, weights, layout, tables, eps, thread, num_threads, counter):
    """One token of each row by itself; see `advance`."""
    advance(
        codes, index, memory, past, weights, layout, tables, eps, thread, num_threads, counter, 0
    )
