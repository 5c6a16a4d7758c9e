"""Drawing pictures as tokens: prefill the prompt, decode one token, decode the rest.

    codes = sample(model, text, keys=[(seed, 0), (seed, 1)], guidance_scale=3.0)    # B H W

**Guidance.** With a scale s other than 1 every picture is decoded twice in one batch, with its
caption and with the null prompt, and drawn from null + s (caption - null), all logits.

**The same picture in any batch.** Picture k of seed S draws from a stream keyed by (S, k) alone:
one number for each place of its grid, which picks a token by the inverse of the distribution
function. What is left is rounding. A matrix product may add up in another order for another number
of rows, and logits that differ in the seventh digit pick another token once in a great while. On a
CPU prompts are therefore run one by one and steps by a `CompiledSampler`, whose products add up in
one order. For torch's own steps the number of rows is filled up to a multiple of 8, for which its
kernels give a row the same bits however many rows there are and wherever it stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from armchair.core.cuda_graphs import graphed
from armchair.core.device import one_torch_thread
from armchair.core.errors import ConfigError
from armchair.core.random import torch_generator
from armchair.models.sequence.text_to_image import TextToImageTransformer
from armchair.nn.kv_cache import Index, KVCache
from armchair.sampling.evaluating import evaluating
from armchair.sampling.filters import check_filters, filter_logits

_ROWS_MULTIPLE = 8

_SPAN_SECONDS = 0.05  # after which progress is told, and Ctrl-C heard

Progress = Callable[[int, int], None]
"""Called again and again with the number of tokens drawn and to draw."""


@torch.no_grad()
def sample(
    model: TextToImageTransformer,
    text: Int[Tensor, "B T"],
    *,
    keys: Sequence[tuple[int, int]],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance_scale: float = 1.0,
    prime: Int[Tensor, "B P"] | None = None,
    weight_dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Int[Tensor, "B H W"]:
    """Draw one picture's tokens for each row of text.

    Args:
        model: The transformer; dropout is off while it draws.
        text: Text tokens, padded to the model's text length.
        keys: For each row its (seed, index), which alone decide its random numbers.
        temperature: See `filters`; so are the next two.
        top_k: Image tokens to keep; None for all.
        top_p: Probability to keep; None for all.
        guidance_scale: 1 for none; more follows the caption more closely.
        prime: The first P image tokens in raster order, given instead of drawn.
        weight_dtype: What a CPU keeps weights in: float32, bfloat16, or int8; the fewer bits, the
            faster. All else is float32. A GPU takes the model as it is.
        progress: Called after each token, or some of them where they are quick.

    Returns:
        Image tokens on the grid, on the model's device.

    Raises:
        ConfigError: A setting is out of range, or the inputs do not fit each other or the model.
    """
    text = text.to(model.device, torch.long)
    prime = text.new_empty(len(text), 0) if prime is None else prime.to(text)
    _check(model, text, keys, guidance_scale, prime)
    check_filters(temperature, top_k, top_p)
    filters: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    length, start, side = model.config.image_length, prime.shape[1], model.config.grid_size
    uniforms = keyed_uniforms("sample", keys, length).to(text.device)
    codes = torch.cat([prime, prime.new_zeros(len(text), length - start)], dim=1)
    if start < length:
        given = (model, text, codes, start, uniforms, guidance_scale, filters)
        told = progress or (lambda drawn, total: None)
        with evaluating(model):
            if text.device.type == "cpu":
                _draw_compiled(*given, weight_dtype, told)
            else:
                _draw_by_torch(*given, told)
    return codes.view(-1, side, side)


def _draw_compiled(
    model: TextToImageTransformer,
    text: Tensor,
    codes: Tensor,
    start: int,
    uniforms: Tensor,
    guidance_scale: float,
    filters: dict[str, Any],
    weight_dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Fill in codes, B S, from the `start`-th on, on a CPU."""
    from armchair.models.sequence.compiled_decoder import CompiledDecoder  # imports numba
    from armchair.sampling.compiled_choice import CompiledChoice
    from armchair.sampling.compiled_sampler import CompiledSampler

    candidates = candidate_rows(len(text), guided=guidance_scale != 1, filled=False)
    prompts, rows, logits = run_prompts(model, text, codes[:, :start], candidates)
    choice = CompiledChoice(batch_size=len(text), guidance_scale=guidance_scale, **filters)
    decoder = CompiledDecoder(model, prompts, rows, weight_dtype=weight_dtype)
    sampler = CompiledSampler(decoder, choice, candidates)
    length = codes.shape[1]
    at, span = start + 1, 1
    with one_torch_thread():
        codes[:, start] = choice(logits, uniforms[:, start])
        progress(1, length - start)
        while at < length:
            stop, began = min(at + span, length), time.perf_counter()
            sampler.draw(codes, uniforms, at, stop)
            seconds = (time.perf_counter() - began) / (stop - at)
            at, span = stop, max(1, int(_SPAN_SECONDS / seconds))
            progress(at - start, length - start)


def _draw_by_torch(
    model: TextToImageTransformer,
    text: Tensor,
    codes: Tensor,
    start: int,
    uniforms: Tensor,
    guidance_scale: float,
    filters: dict[str, Any],
    progress: Progress,
) -> None:
    """The same on any device."""
    length = codes.shape[1]
    candidates = candidate_rows(len(text), guided=guidance_scale != 1).to(text.device)
    cache, logits = prefill(model, text, codes[:, :start], candidates)

    def choose(logits: Tensor, uniforms: Tensor) -> Tensor:
        logits = guided_logits(logits, len(text), guidance_scale)
        return draw(filter_logits(logits, **filters), uniforms)

    def next_codes(last: Tensor, index: Tensor, uniforms: Tensor) -> Tensor:
        return choose(decode_one(model, cache, last[candidates], index), uniforms)

    step = graphed(next_codes, text.device)
    places = torch.arange(length, device=text.device).split(1)
    for place in range(start, length):
        if place == start:
            codes[:, place] = choose(logits, uniforms[:, place])
        else:
            codes[:, place] = step(codes[:, place - 1], places[place - 1], uniforms[:, place])
        progress(place + 1 - start, length - start)


def candidate_rows(batch_size: int, *, guided: bool, filled: bool = True) -> Int[Tensor, " R"]:
    """Which candidate each row of the decoding batch belongs to.

    Args:
        batch_size: Candidates B.
        guided: Whether each has a row for its null prompt too.
        filled: Whether to fill up to a multiple of 8, as torch's products need it.

    Returns:
        The R rows' candidates: all B, again all B if guided, and the first to fill up.
    """
    rows = torch.arange(batch_size).repeat(2 if guided else 1)
    return torch.cat([rows, rows.new_zeros(-len(rows) % _ROWS_MULTIPLE)]) if filled else rows


def run_prompts(
    model: TextToImageTransformer,
    text: Int[Tensor, "B T"],
    prime: Int[Tensor, "B P"],
    candidates: Int[Tensor, " R"],
) -> tuple[KVCache, Int[Tensor, " R"], Float[Tensor, "R V"]]:
    """Run the prompts, each different one once.

    Args:
        model: The transformer.
        text: One caption for each candidate.
        prime: Its first image tokens.
        candidates: See `candidate_rows`; rows from the B-th on take the null prompt.

    Returns:
        The prompts' cache, the prompt of each row, and the rows' logits of the first image token
        to draw.
    """
    nulls = model.null_text(len(candidates) - len(text))
    prompts = torch.cat([torch.cat([text, nulls]), prime[candidates]], dim=1)  # R T+P
    unique, rows = prompts.unique(dim=0, return_inverse=True)
    if text.device.type != "cpu":
        unique = torch.cat([unique, unique[:1].expand(-len(unique) % _ROWS_MULTIPLE, -1)])
    text, prime = unique.split([text.shape[1], prime.shape[1]], dim=1)
    cache = model.new_cache(num_prompts=len(unique))
    if text.device.type == "cpu":  # one by one: the same bits beside any others, and nothing more
        pieces = [
            model.prefill(*prompt, cache.of_prompt(number))
            for number, prompt in enumerate(zip(text.split(1), prime.split(1), strict=True))
        ]
        logits = torch.cat([model.image_logits(piece) for piece in pieces])
        return cache, rows, logits[rows]
    hidden = model.prefill(text, prime, cache)
    return cache, rows, model.image_logits(hidden[rows])


def prefill(
    model: TextToImageTransformer,
    text: Int[Tensor, "B T"],
    prime: Int[Tensor, "B P"],
    candidates: Int[Tensor, " R"],
) -> tuple[KVCache, Float[Tensor, "R V"]]:
    """Run the prompts and give every row a cache that shares them; see `run_prompts`."""
    prompts, rows, logits = run_prompts(model, text, prime, candidates)
    return prompts.expand(rows), logits


def decode_one(
    model: TextToImageTransformer, cache: KVCache, codes: Int[Tensor, " R"], index: Index
) -> Float[Tensor, "R V"]:
    """Take the image tokens at raster position `index` in and predict the next ones."""
    return model.image_logits(model.decode(codes, cache, index))


def guided_logits(
    logits: Float[Tensor, "R V"], batch_size: int, scale: float
) -> Float[Tensor, "B V"]:
    """Combine the captions' and the null prompt's logits: null + scale (caption - null).

    The first B rows are the captions', the next B the null prompts'. A scale of 1
    reads no null rows, and there need be none.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", equation 6, on logits.
    """
    caption = logits[:batch_size]
    if scale == 1:
        return caption
    null = logits[batch_size : 2 * batch_size]
    return null + scale * (caption - null)


def draw(logits: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Pick the token at which the distribution function first exceeds the row's number.

    Args:
        logits: Of each row, -inf for what must not be drawn.
        uniforms: Float64, in [0, 1), one a row.
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)  # B V
    threshold = uniforms[:, None] * cumulative[:, -1:]
    # Rounding may put the threshold on the very end: the first token that reaches it stays legal.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.searchsorted(cumulative, threshold, right=True).minimum(last)[:, 0]


def keyed_uniforms(
    purpose: str, keys: Sequence[tuple[int, int]], length: int
) -> Float[Tensor, "B S"]:
    """Numbers in [0, 1), of each picture its own.

    Args:
        purpose: What they are for.
        keys: For each picture its (seed, index).
        length: Numbers S of each.
    """
    streams = [torch_generator(purpose, *key) for key in keys]
    return torch.stack([torch.rand(length, generator=g, dtype=torch.float64) for g in streams])


def _check(
    model: TextToImageTransformer,
    text: Tensor,
    keys: Sequence[tuple[int, int]],
    guidance_scale: float,
    prime: Tensor,
) -> None:
    config = model.config
    if len(text) == 0 or text.shape[1] != config.text_length:
        expected = f"one row or more of {config.text_length} tokens"
        hint = "encode captions with the tokenizer of the model"
        raise ConfigError("text", got=tuple(text.shape), expected=expected, hint=hint)
    foreign = (text < 0) | ((text >= config.text_vocab_size) & (text != model.null_text(len(text))))
    if foreign.any():
        expected = f"tokens in [0, {config.text_vocab_size}) and each position's own padding"
        hint = "encode captions with the tokenizer of the model"
        raise ConfigError("text", got=text[foreign].tolist(), expected=expected, hint=hint)
    if len(keys) != len(text):
        expected, hint = f"one for each of {len(text)} rows", "a key is a seed and an index"
        raise ConfigError("keys", got=len(keys), expected=expected, hint=hint)
    if not (guidance_scale >= 0 and math.isfinite(guidance_scale)):
        hint = "1 is no guidance"
        raise ConfigError("guidance_scale", got=guidance_scale, expected="0 or more", hint=hint)
    if len(prime) != len(text) or prime.shape[1] > config.image_length:
        expected = f"{len(text)} rows of at most {config.image_length} codes"
        hint = "give each row the same number of first codes"
        raise ConfigError("prime", got=tuple(prime.shape), expected=expected, hint=hint)
    if prime.numel() and (prime.min() < 0 or prime.max() >= config.image_vocab_size):
        expected = f"codes in [0, {config.image_vocab_size})"
        found = [int(prime.min()), int(prime.max())]
        hint = "encode pictures with the autoencoder of the model"
        raise ConfigError("prime", got=found, expected=expected, hint=hint)
