"""One step of sampling by the transformer as a compiled function; see `CompiledDecoder`.

    Threads(4).run(step, codes, index, memory, weights, layout, tables, eps)

All numbers lie in one array, and all weights of linear layers in another, so that a compiled
function takes few arguments: compiling is paid for by the argument. `Layout` and `Tables` say what
begins where. Functions stand above those that call them.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from armchair.core.jit import jit, meet, piece
from armchair.nn.compiled_functions import gelu, layer_norm, softmax
from armchair.nn.panels import PANEL, multiply

_QKV, _PROJECTION, _HIDDEN, _MLP_PROJECTION, _HEAD = range(5)
_STAGES = 5  # of a layer


class Layout(NamedTuple):
    """Sizes, and where each kind of number begins in the memory."""

    num_rows: int  # R
    num_threads: int
    num_layers: int  # L
    num_heads: int  # N
    head_dim: int  # K
    dim: int  # D
    num_prompts: int  # P
    text_length: int  # T
    longest: int  # slots S of the layer that keeps most, in whole panels

    codes: int  # V D
    places: int  # S D
    norms: int  # L 4 D: gain and bias before the attention, and before the perceptron
    last_norm: int  # 2 D
    prompt_keys: int  # L P N T/16 K 16
    prompt_values: int  # L P N K/16 T 16

    x: int  # R D, the stream
    normed: int  # threads R D
    qkv: int  # R 3D, filled up to whole panels, as all that products write
    mixed: int  # R D, what was attended to
    added: int  # R D
    hidden: int  # R 4D
    activated: int  # R 4D
    scores: int  # threads T+S
    means: int  # threads 2 K
    logits: int  # R V


class Tables(NamedTuple):
    """Where else to look."""

    linears: Any  # 5 4: where weights begin, and scales and biases; inputs K and panels P
    rows: Any  # R, the prompt of each
    layers: Any  # L 3: where keys begin, R N S/16 K 16, and values, R N K/16 S 16; slots S
    tokens: Any  # L S 5: own slot; sees slots from the second number to before the third, but ...
    hidden: Any  # ... not those that stand here from the fourth to before the fifth


@jit()
def _attend_one(
    query, prompt, keys, values, slots, layer, index, thread, memory, layout, tables, mixed
):
    """One row's one head."""
    text, dim = layout.text_length, layout.head_dim
    length, width = -(-text // PANEL) * PANEL, -(-dim // PANEL) * PANEL
    prompt_keys = layout.prompt_keys + prompt * length * dim
    prompt_values = layout.prompt_values + prompt * length * width
    _, first, stop, hidden, hidden_stop = tables.tokens[layer, index]
    begin, panels = first // PANEL, (stop + PANEL - 1) // PANEL - first // PANEL
    scores = layout.scores + thread * (length + layout.longest)
    means = layout.means + thread * 2 * width

    size = dim * PANEL
    multiply(
        memory, query, 0, 1, memory, prompt_keys, size, length // PANEL, dim, memory, scores, 0
    )
    multiply(
        memory,
        query,
        0,
        1,
        memory,
        keys + begin * size,
        size,
        panels,
        dim,
        memory,
        scores + length,
        0,
    )

    begin *= PANEL
    total = length + panels * PANEL
    weights = piece(memory, scores, total)
    for i in range(text, length + first - begin):
        weights[i] = -np.inf
    for i in range(length + stop - begin, total):
        weights[i] = -np.inf
    for i in range(hidden, hidden_stop):
        weights[length + tables.hidden[i] - begin] = -np.inf
    softmax(weights, np.float32(1) / np.sqrt(np.float32(dim)))

    count = width // PANEL
    multiply(
        memory, scores, 0, 1, memory, prompt_values, length * PANEL, count, length, memory, means, 0
    )
    multiply(
        memory, scores + length, 0, 1, memory, values + begin * PANEL, slots * PANEL, count,
        panels * PANEL, memory, means + width, 0,
    )  # fmt: skip
    of_prompt, of_own = piece(memory, means, width), piece(memory, means + width, width)
    for i in range(len(mixed)):
        mixed[i] = of_prompt[i] + of_own[i]


@jit()
def _attend(layer, index, thread, memory, layout, tables):
    """Keep the keys and values of a thread's rows and heads; attend to all that the token sees."""
    heads, dim, filled_dim = layout.num_heads, layout.head_dim, -(-layout.head_dim // PANEL) * PANEL
    keys, values, slots = tables.layers[layer]
    slot, width = tables.tokens[layer, index, 0], tables.linears[_QKV, 3] * PANEL
    items = layout.num_rows * heads
    for item in range(
        items * thread // layout.num_threads, items * (thread + 1) // layout.num_threads
    ):
        row, head = item // heads, item % heads
        qkv = piece(memory, layout.qkv + row * width, width)
        own_keys = keys + item * slots * dim
        own_values = values + item * slots * filled_dim
        key = own_keys + slot // PANEL * dim * PANEL + slot % PANEL
        for i in range(dim):
            memory[key + i * PANEL] = qkv[layout.dim + head * dim + i]
            value = own_values + (i // PANEL * slots + slot) * PANEL + i % PANEL
            memory[value] = qkv[2 * layout.dim + head * dim + i]
        prompt = (layer * layout.num_prompts + tables.rows[row]) * heads + head
        query = layout.qkv + row * width + head * dim
        mixed = piece(memory, layout.mixed + row * layout.dim + head * dim, dim)
        _attend_one(
            query,
            prompt,
            own_keys,
            own_values,
            slots,
            layer,
            index,
            thread,
            memory,
            layout,
            tables,
            mixed,
        )


@jit()
def _normalise(memory, layout, norm, normed, eps):
    """Each row of the stream; every thread for itself."""
    gain, bias = piece(memory, norm, layout.dim), piece(memory, norm + layout.dim, layout.dim)
    for row in range(layout.num_rows):
        x = piece(memory, layout.x + row * layout.dim, layout.dim)
        layer_norm(x, gain, bias, eps, piece(memory, normed + row * layout.dim, layout.dim))


@jit(fastmath={"contract"})
def _share(memory, weights, layout, tables, name, layer, thread, rows, outputs):
    """A thread's part of a linear layer; from which column to before which."""
    at, factors, inputs, count = tables.linears[name]
    start, stop = count * thread // layout.num_threads, count * (thread + 1) // layout.num_threads
    distance, width = inputs * PANEL, count * PANEL
    first, last = start * PANEL, stop * PANEL
    panel = at + (layer * count + start) * distance
    multiply(
        memory, rows, inputs, layout.num_rows, weights, panel, distance, stop - start, inputs,
        memory, outputs + first, width,
    )  # fmt: skip
    scale = piece(memory, factors + 2 * layer * width + first, last - first)
    bias = piece(memory, factors + (2 * layer + 1) * width + first, last - first)
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
def _stage(number, thread, index, memory, weights, layout, tables, eps):
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
        _attend(layer, index, thread, memory, layout, tables)
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
            for i in range(len(after)):
                after[i] = gelu(before[i])
    else:
        start, stop = _share(
            memory, weights, layout, tables, _MLP_PROJECTION, layer, thread, layout.activated,
            layout.added,
        )  # fmt: skip
        _add(memory, layout, start, stop)


@jit()
def step(codes, index, memory, weights, layout, tables, eps, thread, num_threads, counter):
    """One token of each row: stage after stage, each shared by the threads."""
    if thread == 0:
        for row in range(layout.num_rows):
            x = piece(memory, layout.x + row * layout.dim, layout.dim)
            code = piece(memory, layout.codes + codes[row] * layout.dim, layout.dim)
            place = piece(memory, layout.places + index * layout.dim, layout.dim)
            for i in range(len(x)):
                x[i] = code[i] + place[i]
    meet(counter, num_threads)
    stages = _STAGES * layout.num_layers + 1
    for number in range(stages):
        _stage(number, thread, index, memory, weights, layout, tables, eps)
        meet(counter, num_threads * (number + 2))
