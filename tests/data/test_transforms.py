import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from armchair.core.errors import ConfigError
from armchair.data import transforms
from armchair.data.transforms import (
    augment_for_autoencoder,
    augment_for_transformer,
    center_crop,
    resize,
)

sides = st.integers(1, 40)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def average_areas(pixels: np.ndarray, size: int) -> np.ndarray:
    """Area averaging from its definition: enlarge without loss, then average whole blocks."""
    side = len(pixels)
    large = pixels.astype(np.float64).repeat(size, axis=0).repeat(size, axis=1)
    return large.reshape(size, side, size, side, 3).mean(axis=(1, 3))


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 99))
@settings(deadline=None)
def test_shrinking_averages_areas_exactly(side: int, size: int, seed: int) -> None:
    side, size = max(side, size), min(side, size)
    assume(side < 8 * size)  # from there on, whole blocks are averaged and rounded first
    pixels = noise(side, side, seed)
    assert np.abs(resize(pixels, size) - average_areas(pixels, size)).max() <= 0.501


@pytest.mark.parametrize("size", [32, 57, 63])
def test_shrinking_is_not_nearest_neighbour(size: int) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = resize(stripes, size)
    assert np.unique(shrunk).size == 1 if size == 32 else np.unique(shrunk).size > 8
    assert shrunk.mean() == pytest.approx(127.5, abs=1)


def test_very_large_pictures_are_averaged_too() -> None:
    pixels = noise(1024, 1024)
    expected = pixels.reshape(32, 32, 32, 32, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, 32) - expected).max() < 1
    assert resize(np.full((999, 999, 3), 77, np.uint8), 10).tolist() == [[[77] * 3] * 10] * 10


def test_right_size_passes_untouched() -> None:
    pixels = noise(32, 32)
    assert np.shares_memory(center_crop(pixels, 32), pixels)
    assert np.array_equal(center_crop(pixels, 32), pixels)


def test_center_crop_takes_the_centre() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    assert (center_crop(pixels, 5) == 200).all()
    assert (center_crop(pixels.swapaxes(0, 1), 5) == 200).all()


def test_small_pictures_are_enlarged_smoothly() -> None:
    pixels = noise(8, 8)
    expected = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(center_crop(pixels, 16), np.asarray(expected))


@pytest.mark.parametrize("transform", [augment_for_autoencoder, augment_for_transformer])
@given(height=sides, width=sides, size=st.integers(1, 24), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_any_picture_gives_the_size_asked_for(
    transform, height: int, width: int, size: int, seed: int
) -> None:
    pixels = noise(height, width)
    before = pixels.copy()
    result, again = (transform(pixels, size, np.random.default_rng(seed)) for _ in range(2))
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(result, again)
    assert np.array_equal(pixels, before)


def record_resizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, int]]:
    calls: list[tuple[np.ndarray, int]] = []

    def recording(pixels: np.ndarray, size: int) -> np.ndarray:
        calls.append((pixels, size))
        return resize(pixels, size)

    monkeypatch.setattr(transforms, "resize", recording)
    return calls


def numbered_columns(height: int, width: int) -> np.ndarray:
    row = np.arange(width, dtype=np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def test_listing_1_scales_and_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_resizes(monkeypatch)
    generator = np.random.default_rng(0)
    for _ in range(600):
        augment_for_autoencoder(numbered_columns(100, 120), 32, generator)
    assert {size for _, size in calls} == set(range(36, 49))
    assert {square.shape for square, _ in calls} == {(100, 100, 3)}
    assert {int(square[0, 0, 0]) for square, _ in calls} == set(range(21))


def test_listing_1_never_enlarges_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_resizes(monkeypatch)
    generator = np.random.default_rng(0)
    for side in (20, 32, 34, 40):
        for _ in range(50):
            augment_for_autoencoder(noise(side, side), 32, generator)
    sizes = {side: {size for square, size in calls if len(square) == side} for side in (20, 32, 34)}
    assert sizes == {20: {32}, 32: {32}, 34: {34}}


def test_listing_1_flips_half_of_the_pictures() -> None:
    generator = np.random.default_rng(0)
    columns = numbered_columns(64, 64)
    rows = [augment_for_autoencoder(columns, 32, generator)[0, :, 0] for _ in range(400)]
    assert np.mean([row[0] > row[-1] for row in rows]) == pytest.approx(0.5, abs=0.1)


def test_listing_2_crops_near_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_resizes(monkeypatch)
    generator = np.random.default_rng(0)
    for _ in range(600):
        augment_for_transformer(numbered_columns(80, 180), 32, generator)
    assert {size for _, size in calls} == set(range(32, 37))
    assert {int(square[0, 0, 0]) for square, _ in calls} == set(range(37, 62))  # of a slack of 100


def test_listing_2_never_flips() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        row = augment_for_transformer(numbered_columns(64, 64), 32, generator)[0, :, 0]
        assert (np.diff(row.astype(int)) > 0).all()


def test_size_is_checked() -> None:
    with pytest.raises(ConfigError, match="size: got 0"):
        resize(noise(4, 4), 0)
