"""The numbers of "Learning Transferable Visual Models From Natural Language Supervision"."""

from __future__ import annotations

import pytest
import torch

from armchair.models.clip import CLIPModel
from armchair.recipes import build_recipe
from armchair.training.clip import CLIPRecipe


@pytest.fixture(scope="module")
def recipe() -> CLIPRecipe:
    return build_recipe("clip-paper")


def test_the_size_of_vit_l_14(recipe: CLIPRecipe) -> None:
    """Table 20; the published model has as many parameters."""
    with torch.device("meta"):
        model = CLIPModel(recipe.clip)
    assert sum(parameter.numel() for parameter in model.parameters()) == 427_616_513


def test_the_training(recipe: CLIPRecipe) -> None:
    """Section 2.5 and tables 18 and 19."""
    training = recipe.clip_training
    assert training.batch_size == 32_768
    assert training.num_images == 32 * 400_000_000
    assert training.num_images / training.batch_size == 390_625
    optimizer = training.optimizer
    assert optimizer.hidden_matrices == "adamw"
    assert optimizer.betas == (0.9, 0.98)
    assert optimizer.epsilon == 1e-6
    assert optimizer.weight_decay == 0.2
    rate = optimizer.learning_rate
    assert rate(1000 / 390_625) == pytest.approx(2e-4)
    assert rate(2000 / 390_625) == pytest.approx(4e-4)
    assert rate((1 + 2000 / 390_625) / 2) == pytest.approx(2e-4)
    assert rate(1.0) == 0


def test_pictures_are_cropped_and_never_flipped(recipe: CLIPRecipe) -> None:
    assert recipe.augment
    assert recipe.tokenizer.dropout == 0
