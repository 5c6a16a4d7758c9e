"""Prompts to judge a model by, balanced over what they ask for."""

from __future__ import annotations

from armchair.core.errors import UnknownNameError
from armchair.core.random import numpy_generator
from armchair.data.scenes.backgrounds import BACKGROUNDS
from armchair.data.scenes.wording import Prompt, describe
from armchair.data.scenes.world import (
    HELD_OUT_PAIRS,
    RELATIONS,
    SEEN_PAIRS,
    SIZES,
    double_scene,
    pick,
    scene,
    single_scene,
)

PROMPT_KINDS = ("seen", "held_out", "relations")
FRESH_WORLD = 1_000_003
"""The first world that is only measured on; training has small seeds."""


def prompts(kind: str, count: int, seed: int) -> list[Prompt]:
    """Prompts of one kind; the first ones stay the same when more are asked for.

    Args:
        kind: "seen" asks for one object, of SEEN_PAIRS; "held_out" for one of HELD_OUT_PAIRS;
            "relations" for two objects of SEEN_PAIRS in a relation. Every pair comes once before
            any comes twice, and the relations take turns.
        count: How many.
        seed: Which ones.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    if kind not in PROMPT_KINDS:
        raise UnknownNameError("kind", kind, PROMPT_KINDS)
    pairs = HELD_OUT_PAIRS if kind == "held_out" else SEEN_PAIRS
    order = numpy_generator(f"prompts/{kind}/order", seed).permutation(len(pairs))
    result = []
    for index in range(count):
        generator = numpy_generator(f"prompts/{kind}", seed, index)
        choices = generator.random(9).tolist()
        pair = pairs[order[index % len(pairs)]]
        background = pick(BACKGROUNDS, choices[0])
        if kind == "relations":
            second = pick([other for other in pairs if other[0] != pair[0]], choices[1])
            relation = RELATIONS[index % len(RELATIONS)]
            shown = double_scene((pair, second), relation, background, choices[2:8])
        else:
            shown = single_scene(pair, pick(SIZES, choices[1]), background, choices[2:5])
        result.append(describe(shown, generator))
    return result


def distinct_prompts(count: int, seed: int) -> list[Prompt]:
    """Texts about scenes that no training saw, each true of its own scene and of no other's.

    Args:
        count: How many.
        seed: Which ones.
    """
    chosen: list[Prompt] = []
    index = 0
    while len(chosen) < count:
        generator = numpy_generator("prompts/distinct", seed, index)
        other = scene(FRESH_WORLD + seed, index, split="validation")
        prompt = describe(other, generator)
        if not any(
            prompt.stated.is_true_of(kept.scene) or kept.stated.is_true_of(other) for kept in chosen
        ):
            chosen.append(prompt)
        index += 1
    return chosen
