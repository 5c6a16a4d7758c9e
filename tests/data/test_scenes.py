from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armchair.core.errors import ConfigError, UnknownNameError
from armchair.core.random import numpy_generator
from armchair.data.scenes import (
    BACKGROUNDS,
    HELD_OUT_PAIRS,
    MATERIALS,
    OBJECTS,
    PROMPT_KINDS,
    RELATIONS,
    SEEN_PAIRS,
    SIZES,
    SPLITS,
    Prompt,
    Scene,
    Scenes,
    ScenesConfig,
    Stated,
    captions,
    describe,
    distinct_prompts,
    double_scene,
    draw,
    prompts,
    scene,
    single_scene,
)
from armchair.data.scenes.backgrounds import BACKGROUND_COLOURS
from armchair.data.scenes.materials import PALETTES
from armchair.data.scenes.near_misses import near_miss
from armchair.data.scenes.objects import PARTS, Part, Spot
from armchair.data.scenes.outlines import band, box, disc, join, rectangle, smooth
from armchair.data.scenes.wording import MAX_CAPTIONS, with_article
from armchair.data.scenes.world import OPPOSITE
from armchair.data.types import CaptionedPictures

MANY = 2000


def many(split: str = "train", count: int = MANY) -> list[Scene]:
    return [scene(3, index, split=split) for index in range(count)]


# --- outlines ---


def test_outlines_lie_where_they_are_put():
    assert box([rectangle(1, 2, 5, 9, rounding=1)]) == pytest.approx((1, 2, 5, 9))
    assert box([disc(4, 5, 2)]) == pytest.approx((2, 3, 6, 7))
    left, top, right, bottom = box([band(0, 0, 3, 2, angles=(-90, 90))])
    assert (left, top, right, bottom) == pytest.approx((0, -3, 3, 3), abs=0.02)
    assert join(disc(0, 0, 1), disc(1, 1, 1)).shape == (80, 2)


def test_a_smooth_curve_passes_through_its_knots():
    knots = [(0.0, 0.0), (4.0, 1.0), (5.0, 5.0), (-1.0, 3.0)]
    curve = smooth(*knots)
    for knot in knots:
        assert np.abs(curve - knot).sum(axis=1).min() < 1e-12


# --- the world ---


def test_the_vocabulary_is_as_large_as_promised():
    assert len(OBJECTS) == len(MATERIALS) == 12
    assert len(BACKGROUNDS) == 8
    assert set(SEEN_PAIRS).isdisjoint(HELD_OUT_PAIRS)
    assert len(SEEN_PAIRS) + len(HELD_OUT_PAIRS) == 144 == len({*SEEN_PAIRS, *HELD_OUT_PAIRS})


def test_one_pair_in_eight_is_held_out_and_no_object_or_material_loses_more_than_two():
    assert len(HELD_OUT_PAIRS) * 8 == len(OBJECTS) * len(MATERIALS)
    for place, names in ((0, OBJECTS), (1, MATERIALS)):
        lost = Counter(pair[place] for pair in HELD_OUT_PAIRS)
        assert set(lost) == set(names)
        assert max(lost.values()) <= 2


@pytest.mark.parametrize(
    "pair",
    [
        ("armchair", "avocado"),
        ("lamp", "strawberry"),
        ("mug", "kiwi"),
        ("teapot", "watermelon"),
    ],
)
def test_the_papers_kind_of_pair_is_held_out(pair):
    assert pair in HELD_OUT_PAIRS


@pytest.mark.parametrize("split", ["train", "validation"])
def test_held_out_pairs_never_occur_in_training_or_validation(split):
    shown = {pair for drawn in many(split) for pair in drawn.pairs}
    assert shown == set(SEEN_PAIRS)


def test_the_held_out_split_shows_held_out_pairs_only():
    shown = {pair for drawn in many("held_out", 500) for pair in drawn.pairs}
    assert shown == set(HELD_OUT_PAIRS)


def test_a_scene_is_a_pure_function_of_its_arguments():
    again = [scene(3, index) for index in reversed(range(50))]
    assert again[::-1] == many(count=50)
    assert scene(3, 0) != scene(4, 0)
    assert len({scene(3, 0, split=split) for split in SPLITS}) == 3
    assert scene(-1, 10**18) == scene(-1, 10**18)


def test_the_same_scene_on_every_machine():
    """Golden: the sampler's streams may never change, or trained models lose their world."""
    drawn = scene(0, 0)
    assert drawn.pairs == (("backpack", "cheese"), ("house", "avocado"))
    assert (drawn.background, drawn.relation) == ("pink", "left of")
    assert drawn.places[0].extent == pytest.approx(0.40137653616357255, abs=1e-15)
    attributes = [(drawn.pairs, drawn.background, drawn.size, drawn.relation) for drawn in many()]
    digest = hashlib.sha256(repr(attributes).encode()).hexdigest()
    assert digest[:16] == "40070075e8f6bded"


def test_about_half_of_the_scenes_have_two_objects():
    drawn = many()
    assert 0.46 < sum(len(one.pairs) == 2 for one in drawn) / MANY < 0.54
    for one in drawn:
        assert len(one.pairs) == len(one.places)
        assert (one.size is None, one.relation is None) in {(True, False), (False, True)}
        assert (len(one.pairs) == 2) == (one.relation in RELATIONS)
        assert len({object_ for object_, _ in one.pairs}) == len(one.pairs)


def test_every_choice_is_about_evenly_drawn():
    drawn = many()
    for names, seen in (
        (BACKGROUNDS, [one.background for one in drawn]),
        (SIZES, [one.size for one in drawn if one.size]),
        (RELATIONS, [one.relation for one in drawn if one.relation]),
        (OBJECTS, [object_ for one in drawn for object_, _ in one.pairs]),
        (MATERIALS, [material for one in drawn for _, material in one.pairs]),
    ):
        counts = Counter(seen)
        assert set(counts) == set(names)
        assert max(counts.values()) < 1.6 * min(counts.values())


def test_sizes_are_clearly_apart_and_figures_stay_inside():
    extents = {size: [] for size in SIZES}
    for one in many():
        if one.size:
            extents[one.size].append(one.places[0].extent)
        for place in one.places:
            assert place.extent / 2 < place.x < 1 - place.extent / 2
            assert place.extent / 2 < place.y < 1 - place.extent / 2
    assert min(extents["large"]) > 1.4 * max(extents["small"])
    ratio = np.mean(extents["large"]) / np.mean(extents["small"])
    assert 1.7 < ratio < 1.8


def test_figures_in_a_relation_are_where_it_says_and_do_not_touch():
    signs = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}
    for one in many():
        if one.relation is None:
            continue
        first, second = one.places
        right, down = signs[one.relation]
        along = (second.x - first.x) * right + (second.y - first.y) * down
        across = abs(second.y - first.y) * abs(right) + abs(second.x - first.x) * abs(down)
        assert along > (first.extent + second.extent) / 2
        assert along > 2 * across


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="validation"):
        scene(0, 0, split="valid")


# --- drawing ---


def test_every_object_shows_all_of_a_material():
    for parts in PARTS.values():
        assert {part.role for part in parts if isinstance(part, Part)} >= {"outer", "inner", "trim"}
        assert any(isinstance(part, Spot) for part in parts)


def test_patterns_stay_in_their_circle():
    """But for a corner, by a fifth at most."""
    for material in PALETTES.values():
        for outline, _ in material.pattern:
            assert np.hypot(*outline.T).max() < 1.2


def test_outer_and_trim_colours_stand_apart_from_every_background():
    for material in PALETTES.values():
        for colour in (material.outer, material.trim):
            for background in BACKGROUND_COLOURS.values():
                assert np.linalg.norm(np.subtract(colour, background)) > 80


def test_backgrounds_are_apart_from_each_other():
    colours = list(BACKGROUND_COLOURS.values())
    for index, colour in enumerate(colours):
        for other in colours[:index]:
            assert np.linalg.norm(np.subtract(colour, other)) > 45


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_picture_has_its_colours_and_a_clean_frame(size):
    for index in range(8):
        one = scene(5, index)
        pixels = draw(one, size)
        assert pixels.shape == (size, size, 3)
        background = BACKGROUND_COLOURS[one.background]
        assert (pixels[0] == background).all()
        assert (pixels[:, -1] == background).all()
        shown = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
        for _, material in one.pairs:
            assert {PALETTES[material].outer, PALETTES[material].inner} <= shown


def test_the_same_picture_on_every_machine():
    """Golden, with a little room for how releases of Pillow round a polygon's edge."""
    assert draw(scene(0, 0), 64).mean((0, 1)) == pytest.approx([237.5, 181.0, 175.6], abs=0.5)
    assert draw(scene(0, 3), 128).mean((0, 1)) == pytest.approx([189.2, 159.9, 219.0], abs=0.5)


def test_all_sizes_show_the_same_scene():
    for index in range(30):
        one = scene(6, index)
        small, middle, large = (draw(one, size).astype(float) for size in (64, 128, 256))
        halved = middle.reshape(64, 2, 64, 2, 3).mean((1, 3))
        quartered = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(small - halved).max() < 3
        assert np.abs(small - quartered).mean() < 1


def test_edges_are_smoothed():
    one = single_scene(("clock", "coconut"), "large", "white", (0.5, 0.5, 0.5))
    assert len(np.unique(draw(one, 64).reshape(-1, 3), axis=0)) > 50


def test_a_larger_figure_covers_more():
    def covered(size):
        pixels = draw(single_scene(("mug", "lemon"), size, "black", (0.5, 0.5, 0.5)), 64)
        return (pixels != BACKGROUND_COLOURS["black"]).any(-1).mean()

    assert covered("large") > 2 * covered("small")


def test_all_pairs_look_different():
    pictures = [
        draw(single_scene((object_, material), "large", "gray", (0.5, 0.5, 0.5)), 32).astype(float)
        for object_ in OBJECTS
        for material in MATERIALS
    ]
    flat = np.stack([picture.ravel() for picture in pictures])
    squares = np.square(flat).mean(1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T / flat.shape[1]
    assert distances[~np.eye(len(flat), dtype=bool)].min() > 8**2


def test_drawing_is_fast():
    scenes = Scenes(ScenesConfig(num_pictures=200, size=64))
    scenes.pixels(0)
    start = time.process_time()
    for index in range(200):
        scenes.pixels(index)
    assert 200 / (time.process_time() - start) > 500  # 4,800 a second where this was written


# --- captions ---


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("avocado lamp", "an avocado lamp"), ("umbrella", "an umbrella"), ("kiwi", "a kiwi")],
)
def test_articles(noun, expected):
    assert with_article(noun) == expected


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**9), st.sampled_from(SPLITS), st.integers(0, 10**9))
def test_a_caption_says_what_it_states_and_nothing_else(index, split, key):
    one = scene(0, index, split=split)
    prompt = describe(one, numpy_generator("test", key))
    assert prompt.stated.pairs == one.pairs
    assert prompt.stated.relation == one.relation
    assert prompt.stated.background in {None, one.background}
    assert prompt.stated.size in {None, one.size}
    text = prompt.text.lower()
    words = text.replace(".", "").split()
    for object_, material in one.pairs:
        assert object_ in words
        assert material in words
    assert (prompt.stated.size in words) if prompt.stated.size else not set(SIZES) & set(words)
    stated_background = f"{prompt.stated.background} background" in text
    assert stated_background if prompt.stated.background else "background" not in text
    assert "  " not in text
    assert "{" not in text
    for article, noun in itertools.pairwise(words):
        if article in {"a", "an"}:
            assert (article == "an") == (noun[0] in "aeiou"), text


def test_a_relation_is_told_from_either_side():
    one = next(drawn for drawn in many() if drawn.relation == "left of")
    texts = captions(one, MAX_CAPTIONS, numpy_generator("test", 0))
    (first, _), (second, _) = one.pairs
    orders = {text.lower().index(first) < text.lower().index(second) for text in texts}
    assert orders == {True, False}
    for text in texts:
        lowered = text.lower()
        if "to the left of" in lowered:
            assert lowered.index(first) < lowered.index(second)
        if "to the right of" in lowered:
            assert lowered.index(first) > lowered.index(second)
        if "to its left" in lowered:
            assert lowered.index(first) > lowered.index(second)


def test_captions_in_reading_order_come_first():
    """The left or the upper object is named first in half of the captions, last in the rest."""
    for one in many(count=200):
        texts = [text.lower() for text in captions(one, 8, numpy_generator("test", 0))]
        if one.relation is None:
            continue
        pairs = one.pairs if one.relation in ("left of", "above") else one.pairs[::-1]
        (first, _), (second, _) = pairs
        assert [text.index(first) < text.index(second) for text in texts] == [True] * 4 + [
            False
        ] * 4


def test_relations_have_opposites():
    assert all(OPPOSITE[OPPOSITE[relation]] == relation for relation in RELATIONS)


def test_captions_vary_in_case_and_in_what_they_leave_out():
    texts = [text for index in range(200) for text in Scenes(CONFIG).captions(index)]
    capitalised = sum(text[0].isupper() for text in texts) / len(texts)
    assert 0.2 < capitalised < 0.3
    without = sum("background" not in text for text in texts) / len(texts)
    assert 0.1 < without < 0.35
    assert any("in the shape of an avocado" in text for text in texts)


def test_captions_of_one_scene_differ():
    for index in range(50):
        texts = captions(scene(0, index), MAX_CAPTIONS, numpy_generator("test", index))
        assert len(set(texts)) == MAX_CAPTIONS


@pytest.mark.parametrize("count", [0, MAX_CAPTIONS + 1])
def test_an_impossible_number_of_captions_is_refused(count):
    with pytest.raises(ValueError, match="count"):
        captions(scene(0, 0), count, numpy_generator("test", 0))


# --- prompts ---


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_prompts_are_stable_and_balanced(kind):
    asked = prompts(kind, 252, 0)
    assert asked[:10] == prompts(kind, 10, 0)
    assert asked != prompts(kind, 252, 1)
    allowed = set(HELD_OUT_PAIRS if kind == "held_out" else SEEN_PAIRS)
    assert {pair for prompt in asked for pair in prompt.stated.pairs} == allowed
    firsts = Counter(prompt.stated.pairs[0] for prompt in asked)
    assert set(firsts.values()) == {252 // len(allowed)}
    for prompt in asked:
        assert isinstance(prompt, Prompt)
        assert len(prompt.stated.pairs) == (2 if kind == "relations" else 1)
        assert (prompt.stated.relation is not None) == (kind == "relations")
    if kind == "relations":
        counts = Counter(prompt.stated.relation for prompt in asked)
        assert set(counts.values()) == {63}


def test_an_unknown_kind_of_prompt_is_refused():
    with pytest.raises(UnknownNameError, match="held_out"):
        prompts("heldout", 1, 0)


# --- the data set ---

CONFIG = ScenesConfig(num_pictures=1000, size=64)


def test_it_is_a_data_set_of_captioned_pictures():
    scenes = Scenes(CONFIG)
    assert isinstance(scenes, CaptionedPictures)
    assert len(scenes) == 1000
    assert scenes.pixels(999).shape == (64, 64, 3)
    assert scenes.pixels(7).dtype == np.uint8
    assert (scenes.pixels(7) == draw(scene(0, 7), 64)).all()
    assert len(scenes.captions(7)) == len(set(scenes.captions(7))) == 8
    assert scenes.captions(7) == Scenes(CONFIG).captions(7)


@given(st.integers(0, 999), st.integers(0, 7), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_near_misses_are_worded_alike_and_not_true(index, wording, seed):
    scenes = Scenes(CONFIG)
    shown = scenes.scene(index)
    missed = near_miss(shown, numpy_generator("test", seed))
    assert set(missed.pairs) <= set(SEEN_PAIRS)
    assert len({object_ for object_, _ in missed.pairs}) == len(shown.pairs)
    assert missed.places == shown.places
    told = Stated(missed.pairs, missed.background, missed.size, missed.relation)
    assert not told.is_true_of(shown)
    texts = scenes.near_misses(index, wording, 3, numpy_generator("test", seed))
    assert texts == scenes.near_misses(index, wording, 3, numpy_generator("test", seed))
    assert len(texts) == 3
    assert scenes.captions(index)[wording] not in texts


def test_near_misses_miss_each_thing_that_a_caption_may_state():
    missed = Counter[str]()
    for index in range(300):
        shown = scene(0, index)
        other = near_miss(shown, numpy_generator("test", index))
        for name in ("pairs", "background", "size", "relation"):
            missed[name] += getattr(shown, name) != getattr(other, name)
    assert missed.total() == 300  # one thing each
    assert missed["pairs"] > 150
    assert min(missed.values()) > 10


def test_a_picture_may_be_written_to_without_harm():
    scenes = Scenes(CONFIG)
    scenes.pixels(0)[:] = 0
    assert scenes.pixels(0).max() > 0


@pytest.mark.parametrize("index", [-1, 1000])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(IndexError, match="expected 0 to 999"):
        Scenes(CONFIG).pixels(index)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_pictures", 0), ("size", 31), ("split", "test"), ("num_captions", 33)],
)
def test_a_bad_config_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        ScenesConfig(**{"num_pictures": 10, field: value})


def test_distinct_prompts_are_each_true_of_their_own_scene_alone() -> None:
    chosen = distinct_prompts(100, 0)
    assert chosen[:10] == distinct_prompts(10, 0)
    assert chosen != distinct_prompts(100, 1)
    for one in chosen:
        assert [other for other in chosen if one.stated.is_true_of(other.scene)] == [one]
    assert any(prompt.stated.relation for prompt in chosen)
    assert any(prompt.stated.background is None for prompt in chosen)


def test_two_objects_are_as_stated_from_either_side() -> None:
    pairs = (("mug", "lemon"), ("clock", "kiwi"))
    shown = double_scene(pairs, "left of", "pink", [0.5] * 6)
    assert Stated(pairs, None, None, "left of").is_true_of(shown)
    assert Stated(pairs[::-1], "pink", None, "right of").is_true_of(shown)
    for stated in (
        Stated(pairs, None, None, "right of"),
        Stated(pairs[::-1], None, None, "left of"),
        Stated(pairs, "blue", None, "left of"),
        Stated(pairs[:1]),
    ):
        assert not stated.is_true_of(shown)
