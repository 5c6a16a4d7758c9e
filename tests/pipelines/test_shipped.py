"""The models that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from armchair.cli.main import main
from armchair.cli.options import SHIPPED_CLIP, SHIPPED_DALLE2
from armchair.data.scenes import distinct_prompts, draw, prompts
from armchair.pipelines import DRAWING, load
from armchair.pipelines.bundle import open_bundle
from armchair.pipelines.bundle_search import SHIPPED, shipped_bundles

FOLDERS = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
MOST_MEGABYTES = {"dalle1": 40, "dalle2": 25, "clip": 15}
KINDS = {name: open_bundle(SHIPPED / name).kind for name in FOLDERS}


def test_every_folder_is_a_model() -> None:
    assert shipped_bundles() == FOLDERS
    assert {"dalle1-scenes", SHIPPED_CLIP, SHIPPED_DALLE2} <= set(FOLDERS)


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


@pytest.mark.parametrize("name", [name for name in FOLDERS if KINDS[name] == "clip"])
def test_it_finds_captions_for_pictures(name: str) -> None:
    clip, asked = load(name, device="cpu"), distinct_prompts(32, seed=1)
    pictures = [Image.fromarray(draw(p.scene, clip.model.config.image_size)) for p in asked]
    assert clip.recalls(pictures, [prompt.text for prompt in asked])["caption_recall_1"] > 0.9


def test_what_ships_is_ranked_by_what_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "a kiwi clock", "--candidates", "2", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    (kept,) = tmp_path.glob("*.png")
    with Image.open(kept) as picture:
        assert picture.text["clip"] == SHIPPED_CLIP  # type: ignore[attr-defined]
    assert main(["rank", "a kiwi clock", str(kept), "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(kept))


def test_a_picture_does_not_depend_on_how_many_are_drawn() -> None:
    model = load("dalle1-scenes", device="cpu")
    prompt = "an armchair in the shape of an avocado"
    (alone,) = model.generate(prompt, seed=0)
    together = model.generate(prompt, count=3, seed=0)
    assert np.array_equal(np.asarray(together[0]), np.asarray(alone))


def test_a_picture_that_is_not_varied_comes_back(tmp_path: Path) -> None:
    """By the model that `vary` takes where none is named, from the noise that it found for it."""
    (asked,) = prompts("seen", 1, seed=0)  # of one object; two want more steps
    picture = draw(asked.scene, 256)
    Image.fromarray(picture).save(tmp_path / "scene.png")
    words = ["--count", "1", "--eta", "0", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["vary", str(tmp_path / "scene.png"), *words]) == 0
    with Image.open(tmp_path / "scene-varied-s0-00.png") as varied:
        assert varied.text["model"] == SHIPPED_DALLE2  # type: ignore[attr-defined]
        off = np.abs(np.asarray(varied).astype(int) - picture)
    assert off.mean() < 10  # levels of 255
