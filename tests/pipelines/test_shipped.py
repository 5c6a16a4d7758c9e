"""The models that come with the package."""

from __future__ import annotations

import numpy as np
import pytest

from armchair.pipelines import DRAWING, load
from armchair.pipelines.bundle import open_bundle
from armchair.pipelines.bundle_search import SHIPPED, shipped_bundles

FOLDERS = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
MOST_MEGABYTES = {"dalle1": 40, "dalle2": 25, "clip": 15}
KINDS = {name: open_bundle(SHIPPED / name).kind for name in FOLDERS}


def test_every_folder_is_a_model() -> None:
    assert shipped_bundles() == FOLDERS
    assert "dalle1-scenes" in FOLDERS


@pytest.mark.parametrize("name", FOLDERS)
def test_it_is_whole_and_small(name: str) -> None:
    bundle = open_bundle(SHIPPED / name)
    assert bundle.size_bytes() <= MOST_MEGABYTES[bundle.kind] * 10**6
    assert bundle.card.startswith(f"# {name}\n")
    assert bundle.evaluation is not None


@pytest.mark.parametrize("name", [name for name in FOLDERS if KINDS[name] in DRAWING])
def test_it_draws(name: str) -> None:
    model = load(name, device="cpu")
    (picture,) = model.generate("an armchair in the shape of an avocado", seed=0)
    size = model.image_size
    assert picture.size == (size, size)
    assert np.asarray(picture).std() > 8  # no blank


def test_a_picture_does_not_depend_on_how_many_are_drawn() -> None:
    model = load("dalle1-scenes", device="cpu")
    prompt = "an armchair in the shape of an avocado"
    (alone,) = model.generate(prompt, seed=0)
    together = model.generate(prompt, count=3, seed=0)
    assert np.array_equal(np.asarray(together[0]), np.asarray(alone))
