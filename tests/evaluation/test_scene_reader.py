from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from faulty_scenes import (
    SIDES,
    blurred,
    erased,
    fresh,
    mixed,
    painted,
    reconstructed,
    saved_as_jpeg,
    singles,
    truth,
)
from PIL import Image, ImageDraw

from armchair.core.errors import DataError
from armchair.core.random import numpy_generator
from armchair.data.scenes import (
    BACKGROUNDS,
    HELD_OUT_PAIRS,
    MATERIALS,
    OBJECTS,
    PROMPT_KINDS,
    SIZES,
    Prompt,
    Scene,
    Stated,
    double_scene,
    draw,
    prompts,
    single_scene,
)
from armchair.data.scenes.backgrounds import BACKGROUND_COLOURS
from armchair.data.scenes.materials import PALETTES
from armchair.evaluation.scene_reader import ATTRIBUTES, Reading, SceneReader, judge

MIDDLE = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def reader() -> SceneReader:
    return SceneReader()


def share_read(reader: SceneReader, scenes: list[Scene], size: int, distort=None) -> float:
    right = 0
    for index, one in enumerate(scenes):
        pixels = draw(one, size)
        if distort is not None:
            pixels = distort(pixels, index)
        right += reader.read(pixels) == truth(one)
    return right / len(scenes)


# --- right ---


@pytest.mark.parametrize(("size", "count"), [(64, 300), (100, 30), (128, 120), (256, 30)])
def test_fresh_renderings_are_read_right(reader, size, count):
    assert share_read(reader, fresh(count), size) >= 0.995


def test_blurred_renderings_are_read_right(reader):
    assert share_read(reader, fresh(300), 64, lambda pixels, _: blurred(pixels)) >= 0.98
    assert share_read(reader, fresh(40), 128, lambda pixels, _: blurred(pixels)) >= 0.98


@pytest.mark.parametrize("size", [64, 128])
def test_soft_tinted_noisy_renderings_are_read_right(reader, size):
    assert share_read(reader, fresh(60), size, reconstructed) >= 0.98


def test_renderings_saved_as_jpeg_are_read_right(reader):
    assert share_read(reader, fresh(60), 128, lambda pixels, _: saved_as_jpeg(pixels)) >= 0.98


@pytest.mark.parametrize("object_", OBJECTS)
def test_every_object_is_read_in_every_material(reader, object_):
    for index, material in enumerate(MATERIALS):
        background = BACKGROUNDS[(index + OBJECTS.index(object_)) % len(BACKGROUNDS)]
        one = single_scene((object_, material), SIZES[index % 2], background, MIDDLE)
        assert reader.read(draw(one, 64)) == truth(one)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_background_is_read_in_every_corner_of_the_jitter(reader, background):
    for corner in range(8):
        jitter = [float(corner >> bit & 1) for bit in range(3)]
        for size in SIZES:
            one = single_scene(HELD_OUT_PAIRS[corner], size, background, jitter)
            assert reader.read(draw(one, 64)) == truth(one)


# --- not gullible ---


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("side", SIDES)
def test_half_of_a_figure_is_not_taken_for_the_whole(reader, side, size):
    passed = sum(reader.read(erased(one, size, side)).pairs == one.pairs for one in singles(40))
    assert passed == 0


@pytest.mark.parametrize("size", [64, 128])
def test_a_wrong_colour_is_not_waved_through(reader, size):
    for one in singles(20):
        for part, colour in (("outer", (255, 0, 255)), ("inner", (0, 255, 255))):
            reading = reader.read(painted(one, size, **{part: colour}))
            assert all(material is None for _, material in reading.pairs)


@pytest.mark.parametrize("size", [64, 128])
def test_a_figure_without_its_pattern_is_of_no_material(reader, size):
    for one in singles(40):
        reading = reader.read(draw(one, size, patterns=False))
        assert all(material is None for _, material in reading.pairs)


def test_a_figure_with_another_pattern_is_hardly_ever_waved_through(reader):
    """It may be where a pattern is faint, as the coconut's is, or like the other."""
    passed = 0
    for index, one in enumerate(singles(40)):
        ((_, material),) = one.pairs
        other = MATERIALS[(MATERIALS.index(material) + 1 + index % 11) % 12]
        pixels = painted(one, 64, pattern=PALETTES[other].pattern)
        passed += reader.read(pixels).pairs == one.pairs
    assert passed <= 8


def test_the_object_is_read_even_if_its_colours_are_of_no_material(reader):
    one = single_scene(("teapot", "kiwi"), "large", "white", MIDDLE)
    colours = {"outer": (130, 20, 160), "inner": (250, 130, 40), "trim": (20, 60, 200)}
    reading = reader.read(painted(one, 64, **colours))
    assert reading.pairs == (("teapot", None),)
    assert (reading.background, reading.size) == ("white", "large")


def test_two_materials_mixed_are_neither(reader):
    melon, berry = (
        single_scene(("house", material), "large", "gray", MIDDLE)
        for material in ("watermelon", "blueberry")
    )
    reading = reader.read(mixed(melon, berry, 64))
    assert all(material is None for _, material in reading.pairs)


def test_two_objects_on_top_of_each_other_are_unreadable(reader):
    clock, umbrella = (
        single_scene((object_, "orange"), "large", "blue", MIDDLE)
        for object_ in ("clock", "umbrella")
    )
    assert reader.read(mixed(clock, umbrella, 64)).unreadable


def plain_shape(kind: str, colour: tuple[int, int, int]) -> np.ndarray:
    picture = Image.new("RGB", (64, 64), BACKGROUND_COLOURS["white"])
    pencil = ImageDraw.Draw(picture)
    if kind == "disc":
        pencil.ellipse((14, 14, 50, 50), fill=colour)
    elif kind == "square":
        pencil.rectangle((14, 14, 50, 50), fill=colour)
    else:
        pencil.polygon([(32, 12), (54, 52), (10, 52)], fill=colour)
    return np.asarray(picture)


@pytest.mark.parametrize("kind", ["disc", "square", "triangle"])
@pytest.mark.parametrize("material", MATERIALS)
def test_plain_shapes_are_unreadable(reader, kind, material):
    assert reader.read(plain_shape(kind, PALETTES[material].outer)).unreadable


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_blank_picture_is_unreadable(reader, background):
    pixels = np.full((64, 64, 3), BACKGROUND_COLOURS[background], dtype=np.uint8)
    reading = reader.read(pixels)
    assert reading.unreadable
    assert reading == Reading(background=background)


def test_noise_and_foreign_pictures_are_unreadable(reader):
    generator = numpy_generator("test/noise", 0)
    noise = generator.integers(0, 256, (128, 128, 3)).astype(np.uint8)
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    gradient = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), -1)
    coarse = np.kron(generator.integers(0, 256, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    for pixels in (noise, gradient, coarse, blurred(noise, 4)):
        assert reader.read(pixels) == Reading()


def test_an_unknown_background_is_not_named(reader):
    pixels = np.full((64, 64, 3), (90, 20, 140), dtype=np.uint8)
    assert reader.read(pixels) == Reading()


def test_three_figures_are_not_taken_for_fewer(reader):
    one = double_scene((("mug", "lemon"), ("boot", "kiwi")), "above", "white", [0.5] * 6)
    pixels = draw(one, 128)
    pixels[:64, 64:] = pixels[:64, :64].copy()[:, ::-1]
    assert reader.read(pixels) != truth(one)


@pytest.mark.parametrize("shape", [(63, 63, 3), (64, 128, 3)])
def test_pictures_it_was_not_made_for_are_refused(reader, shape):
    with pytest.raises(DataError, match="square"):
        reader.read(np.zeros(shape, dtype=np.uint8))


# --- judge ---

ONE = single_scene(("armchair", "avocado"), "small", "pink", MIDDLE)
TWO = double_scene((("clock", "kiwi"), ("mug", "lemon")), "right of", "blue", [0.5] * 6)


def prompt_of(one: Scene) -> Prompt:
    return Prompt("", Stated(one.pairs, one.background, one.size, one.relation), one)


def wrong(verdict: dict[str, bool | None]) -> set[str]:
    assert list(verdict) == [*ATTRIBUTES, "all"]
    names = {name for name, value in verdict.items() if value is False}
    assert ("all" in names) == (len(names) > 0)
    return names - {"all"}


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_pictures_of_what_the_prompts_ask_for_are_judged_right(reader, kind):
    for prompt in prompts(kind, 36, 5):
        verdict = judge(prompt, reader.read(draw(prompt.scene, 64)))
        assert verdict["all"] is True
        for name in ("background", "size", "relation"):
            assert (verdict[name] is None) == (getattr(prompt.stated, name) is None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pairs": (("armchair", "kiwi"),)}, {"material"}),
        ({"pairs": (("teapot", "avocado"),)}, {"object"}),
        ({"background": "green"}, {"background"}),
        ({"size": "large"}, {"size"}),
    ],
)
def test_one_wrong_attribute_of_one_object(reader, change, expected):
    stated = dataclasses.replace(prompt_of(ONE).stated, **change)
    prompt = dataclasses.replace(prompt_of(ONE), stated=stated)
    assert wrong(judge(prompt, reader.read(draw(ONE, 64)))) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"pairs": TWO.pairs[::-1], "relation": "left of"}, set()),
        ({"relation": "left of"}, {"relation"}),
        ({"relation": "above"}, {"relation"}),
        ({"pairs": (("clock", "lemon"), ("mug", "kiwi"))}, {"material"}),
        ({"pairs": (("clock", "kiwi"), ("boot", "lemon"))}, {"object", "relation"}),
    ],
)
def test_one_wrong_attribute_of_two_objects(reader, change, expected):
    stated = dataclasses.replace(prompt_of(TWO).stated, **change)
    prompt = dataclasses.replace(prompt_of(TWO), stated=stated)
    assert wrong(judge(prompt, reader.read(draw(TWO, 64)))) == expected


def test_what_is_not_stated_is_not_judged():
    prompt = Prompt("", Stated((("armchair", "avocado"),)), ONE)
    verdict = judge(prompt, truth(dataclasses.replace(ONE, background="gray", size="large")))
    assert verdict == {
        "object": True,
        "material": True,
        "background": None,
        "size": None,
        "relation": None,
        "all": True,
    }


def test_an_unreadable_picture_is_wrong_in_everything_stated():
    assert wrong(judge(prompt_of(ONE), Reading())) == {"object", "material", "background", "size"}
    assert wrong(judge(prompt_of(TWO), Reading())) == {
        "object",
        "material",
        "background",
        "relation",
    }


def test_the_number_of_objects_counts():
    assert {"object", "material", "size"} <= wrong(judge(prompt_of(ONE), truth(TWO)))
    assert {"object", "material", "relation"} <= wrong(judge(prompt_of(TWO), truth(ONE)))
    assert {"object", "material"} <= wrong(
        judge(
            prompt_of(ONE),
            Reading((("armchair", "avocado"), ("mug", "lemon")), "pink", None, "left of"),
        )
    )
