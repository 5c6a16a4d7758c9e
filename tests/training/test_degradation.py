from __future__ import annotations

import pytest
import torch

from armchair.training import degradation
from armchair.training.degradation import blur, degrade

IMAGES = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_blur_is_a_gaussian_of_three_pixels() -> None:
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 1
    row = torch.tensor([-1.0, 0.0, 1.0]).square().mul(-0.5 / 0.36).exp()
    row = row / row.sum()
    found = blur(spot, 0.6)[0, 0]
    torch.testing.assert_close(found[1:4, 1:4], row[:, None] * row)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))
    grey = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(blur(grey, 0.6), grey)  # up to the edges
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(blur(spot, 0.6)[0, 0], found)


def test_half_of_the_pictures_are_blurred() -> None:
    damaged = degrade(IMAGES, "blur", random())
    kept = (damaged == IMAGES).flatten(1).all(dim=1)
    assert 20 < kept.sum() < 44
    torch.testing.assert_close(damaged[~kept], blur(IMAGES, 0.6)[~kept])


@pytest.mark.parametrize("kind", ["blur", "bsr"])
def test_damage_is_slight_and_a_function_of_the_generator(kind: str) -> None:
    damaged = degrade(IMAGES, kind, random())  # type: ignore[arg-type]
    assert damaged.shape == IMAGES.shape
    assert damaged.abs().max() <= 1
    smooth = blur(blur(IMAGES, 1.0), 1.0)
    again = degrade(smooth, kind, random())  # type: ignore[arg-type]
    assert (again - smooth).abs().mean() < 0.1
    assert torch.equal(degrade(IMAGES, kind, random()), damaged)  # type: ignore[arg-type]
    assert not torch.equal(degrade(IMAGES, kind, random(1)), damaged)  # type: ignore[arg-type]


def test_bsr_does_each_thing_once_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def spy(name: str) -> None:
        true = getattr(degradation, name)
        monkeypatch.setattr(degradation, name, lambda *given: done.append(name) or true(*given))

    for name in ("blur", "resize", "_jpeg"):
        spy(name)
    orders = set()
    for image in IMAGES[:12].split(1):
        degrade(image, "bsr", random(len(orders) + int(image[0, 0, 0, 0] * 1000)))
        assert sorted(done) == ["_jpeg", "blur", "resize", "resize"]
        orders.add(tuple(done))
        done.clear()
    assert len(orders) > 2
