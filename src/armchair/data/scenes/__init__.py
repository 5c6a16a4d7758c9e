"""Scenes: the captioned world that needs no download.

Objects made of unlikely materials ("an armchair in the shape of an avocado"), drawn as vectors,
with captions in many wordings and a list of pairs that training never shows.
"""

from armchair.data.scenes.backgrounds import BACKGROUNDS
from armchair.data.scenes.dataset import MIN_SIZE, Scenes, ScenesConfig
from armchair.data.scenes.drawing import draw
from armchair.data.scenes.materials import MATERIALS
from armchair.data.scenes.objects import OBJECTS
from armchair.data.scenes.prompt_sets import FRESH_WORLD, PROMPT_KINDS, distinct_prompts, prompts
from armchair.data.scenes.wording import Prompt, Stated, captions, describe
from armchair.data.scenes.world import (
    HELD_OUT_PAIRS,
    RELATIONS,
    SEEN_PAIRS,
    SIZES,
    SPLITS,
    Pair,
    Place,
    Scene,
    double_scene,
    scene,
    single_scene,
)

__all__ = [
    "BACKGROUNDS",
    "FRESH_WORLD",
    "HELD_OUT_PAIRS",
    "MATERIALS",
    "MIN_SIZE",
    "OBJECTS",
    "PROMPT_KINDS",
    "RELATIONS",
    "SEEN_PAIRS",
    "SIZES",
    "SPLITS",
    "Pair",
    "Place",
    "Prompt",
    "Scene",
    "Scenes",
    "ScenesConfig",
    "Stated",
    "captions",
    "describe",
    "distinct_prompts",
    "double_scene",
    "draw",
    "prompts",
    "scene",
    "single_scene",
]
