"""Recipes: functions that return full configurations, by name."""

from __future__ import annotations

from collections.abc import Callable

from armchair.core.errors import UnknownNameError
from armchair.recipes.clip_paper import clip_paper
from armchair.recipes.clip_scenes import clip_scenes, clip_scenes_tiny
from armchair.recipes.dalle1_paper import dalle1_paper
from armchair.recipes.dalle1_scenes import scenes, scenes_tiny, scenes_vqvae
from armchair.recipes.dalle2_paper import dalle2_paper, dalle2_paper_autoregressive
from armchair.recipes.dalle2_scenes import (
    dalle2_scenes,
    dalle2_scenes_autoregressive,
    dalle2_scenes_one_step,
    dalle2_scenes_tiny,
    ddpm_scenes,
    ddpm_scenes_tiny,
    glide_scenes,
    glide_scenes_tiny,
)
from armchair.training.clip import CLIPRecipe
from armchair.training.dalle1 import DALLE1Recipe
from armchair.training.dalle2_recipe import DALLE2Recipe

RECIPES: dict[str, Callable[[], DALLE1Recipe | CLIPRecipe | DALLE2Recipe]] = {
    "scenes": scenes,
    "scenes-tiny": scenes_tiny,
    "scenes-vqvae": scenes_vqvae,
    "dalle1-paper": dalle1_paper,
    "clip-scenes": clip_scenes,
    "clip-scenes-tiny": clip_scenes_tiny,
    "clip-paper": clip_paper,
    "dalle2-scenes": dalle2_scenes,
    "dalle2-scenes-one-step": dalle2_scenes_one_step,
    "dalle2-scenes-autoregressive": dalle2_scenes_autoregressive,
    "dalle2-scenes-tiny": dalle2_scenes_tiny,
    "dalle2-paper": dalle2_paper,
    "dalle2-paper-autoregressive": dalle2_paper_autoregressive,
    "glide-scenes": glide_scenes,
    "glide-scenes-tiny": glide_scenes_tiny,
    "ddpm-scenes": ddpm_scenes,
    "ddpm-scenes-tiny": ddpm_scenes_tiny,
}


def build_recipe(name: str) -> DALLE1Recipe | CLIPRecipe | DALLE2Recipe:
    """The recipe of this name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]()
