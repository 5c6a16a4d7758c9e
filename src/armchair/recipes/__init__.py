"""Recipes: functions that return full configurations, by name."""

from __future__ import annotations

from collections.abc import Callable

from armchair.core.errors import UnknownNameError
from armchair.recipes.clip_paper import clip_paper
from armchair.recipes.clip_scenes import clip_scenes, clip_scenes_tiny
from armchair.recipes.dalle1_paper import dalle1_paper
from armchair.recipes.dalle1_scenes import scenes, scenes_tiny, scenes_vqvae
from armchair.training.clip import CLIPRecipe
from armchair.training.dalle1 import DALLE1Recipe

RECIPES: dict[str, Callable[[], DALLE1Recipe | CLIPRecipe]] = {
    "scenes": scenes,
    "scenes-tiny": scenes_tiny,
    "scenes-vqvae": scenes_vqvae,
    "dalle1-paper": dalle1_paper,
    "clip-scenes": clip_scenes,
    "clip-scenes-tiny": clip_scenes_tiny,
    "clip-paper": clip_paper,
}


def build_recipe(name: str) -> DALLE1Recipe | CLIPRecipe:
    """The recipe of this name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]()
