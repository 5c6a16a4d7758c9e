"""What a DALL·E 2 does with pictures that are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from armchair.core.errors import DataError, UsageError
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.diffusion.interpolation import slerp
from armchair.pipelines.dalle2 import DALLE2

SCENES = Scenes(ScenesConfig(num_pictures=3, size=64))
PROMPT = "a kiwi clock"


@pytest.fixture
def pictures() -> list[Image.Image]:
    return [Image.fromarray(SCENES.pixels(index)) for index in range(3)]


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def apart(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(pixels(one) - pixels(other)).mean())


class Spy:
    """Notes what the decoder is told, and what it begins with."""

    def __init__(self, model: DALLE2, monkeypatch: pytest.MonkeyPatch) -> None:
        self.embeddings: list[torch.Tensor] = []
        self.latents: list[torch.Tensor | None] = []
        self.settings: list[Any] = []
        from armchair.pipelines import painter

        sample = painter.sample_images

        def noted(unet: Any, condition: Any, *, latents: Any = None, **rest: Any) -> Any:
            if unet is model.decoder:
                self.embeddings.append(condition.get("embedding"))
                self.latents.append(latents)
                self.settings.append(rest["settings"])
            return sample(unet, condition, latents=latents, **rest)

        monkeypatch.setattr(painter, "sample_images", noted)


@pytest.mark.parametrize(
    ("verb", "words", "steps"),
    [
        ("variations", {"count": 2, "eta": 0.0}, 1 * 4 + 2 * (4 + 2 + 3)),
        ("interpolate", {"count": 3}, 2 * 4 + 3 * (4 + 2 + 3)),
        ("edit", {"before": PROMPT, "after": "a kiwi mug", "count": 1}, 1 * 4 + 4 + 2 + 3),
        ("redraw", {"prompt": PROMPT, "strength": 0.5}, 2 + 2 + 3),
    ],
)
def test_progress_counts_the_way_back_too(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], verb: str, words: dict[str, Any], steps: int
) -> None:
    told: list[tuple[int, int]] = []
    given = pictures[:2] if verb == "interpolate" else pictures[0]
    getattr(tiny_dalle2, verb)(
        given, on_progress=lambda done, total, _: told.append((done, total)), **words
    )
    assert told == sorted(told)
    assert {total for _, total in told} == {steps}
    assert told[-1][0] == steps


# Variations


def test_eta_says_how_far_variations_go(tiny_dalle2: DALLE2, pictures: list[Image.Image]) -> None:
    """Without upsamplers, whose noise is new in each."""
    assert tiny_dalle2.clip is not None
    model = DALLE2(
        tiny_dalle2.tokenizer, tiny_dalle2.clip.model, tiny_dalle2.prior, tiny_dalle2.decoder
    )
    settings = {"count": 2, "decoder_steps": 10}
    none = model.variations(pictures[0], eta=0.0, **settings)
    far = model.variations(pictures[0], eta=1.0, **settings)
    assert [picture.size for picture in none] == [(16, 16)] * 2
    assert apart(*none) == 0 < apart(*far)
    assert none[0].info["eta"] == "0.0"
    assert none[1].info["index"] == "1"


def test_variations_see_the_picture_and_no_caption(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(tiny_dalle2, monkeypatch)
    tiny_dalle2.variations(pictures[0], count=3, batch_size=2)
    assert tiny_dalle2.clip is not None
    own = tiny_dalle2.clip.encode_pictures(pictures[:1])
    assert [len(part) for part in spy.embeddings] == [2, 1]
    torch.testing.assert_close(spy.embeddings[0], own.expand(2, -1))
    assert spy.settings[0].guidance_scale == 1
    assert (spy.settings[0].sampler, spy.settings[0].eta) == ("ddim", 1.0)


def test_a_variation_does_not_depend_on_its_batch(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    three = tiny_dalle2.variations(pictures[0], count=3, seed=4)
    one = tiny_dalle2.variations(pictures[0], count=1, seed=4)
    again = tiny_dalle2.variations(pictures[0], count=3, seed=4, batch_size=1)
    for picture, other in ((one[0], three[0]), (again[2], three[2])):
        assert np.abs(pixels(picture) - pixels(other)).max() <= 2
    assert apart(three[0], tiny_dalle2.variations(pictures[0], count=1, seed=5)[0]) > 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_mode_and_size_are_seen(tiny_dalle2: DALLE2, mode: str) -> None:
    picture = Image.new(mode, (90, 41))
    assert tiny_dalle2.variations(picture, count=1)[0].size == (64, 64)
    assert tiny_dalle2.redraw(picture, PROMPT)[0].size == (64, 64)


def test_pixels_that_are_no_numbers_of_steps_are_refused(tiny_dalle2: DALLE2) -> None:
    with pytest.raises(DataError, match="pixel format"):
        tiny_dalle2.variations(Image.new("F", (32, 32)))


# Interpolation


def test_a_way_goes_along_circles_from_end_to_end(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(tiny_dalle2, monkeypatch)
    frames = tiny_dalle2.interpolate(pictures, count=5)
    assert [frame.info["way"] for frame in frames] == [
        "0.0000", "0.5000", "1.0000", "1.5000", "2.0000",
    ]  # fmt: skip
    assert tiny_dalle2.clip is not None
    own = tiny_dalle2.clip.encode_pictures(pictures)
    [found] = spy.embeddings
    torch.testing.assert_close(found[::2], own)
    torch.testing.assert_close(found[1:2], slerp(own[:1], own[1:2], 0.5))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    [latents] = spy.latents
    assert latents is not None
    torch.testing.assert_close(latents[1:2], slerp(latents[:1], latents[2:3], 0.5))


def test_the_ends_of_a_way_are_the_pictures_as_the_model_has_them(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    first, _, last = tiny_dalle2.interpolate(pictures[:2], count=3, seed=0)
    for end, picture in ((first, pictures[0]), (last, pictures[1])):
        own = tiny_dalle2.variations(picture, count=1, eta=0.0, seed=0)[0]
        assert np.abs(pixels(end) - pixels(own)).max() <= 2


# Edits by text


def test_an_edit_starts_at_the_picture_and_turns_by_theta(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(tiny_dalle2, monkeypatch)
    frames = tiny_dalle2.edit(pictures[0], "a lemon mug", "a kiwi mug", theta=0.5, count=3)
    assert [frame.info["theta"] for frame in frames] == ["0.0000", "0.2500", "0.5000"]
    assert tiny_dalle2.clip is not None
    own = tiny_dalle2.clip.encode_pictures(pictures[:1])
    texts = tiny_dalle2.clip.encode_texts(["a lemon mug", "a kiwi mug"])
    direction = torch.nn.functional.normalize(texts[1:] - texts[:1], dim=1)
    expected = torch.cat([slerp(own, direction, share) for share in (0.0, 0.25, 0.5)])
    torch.testing.assert_close(spy.embeddings[0], expected)
    latents = spy.latents[0]
    assert latents is not None
    assert torch.equal(latents[0], latents[2])  # of the picture, and held
    alone = tiny_dalle2.edit(pictures[0], "a lemon mug", "a kiwi mug", theta=0.5, count=1)
    assert np.abs(pixels(alone[0]) - pixels(frames[2])).max() <= 2


# Redrawing


def test_strength_says_how_much_shows_through(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(tiny_dalle2, monkeypatch)
    for strength in (0.25, 0.5, 1.0):
        drawn = tiny_dalle2.redraw(pictures[0], PROMPT, strength=strength, decoder_steps=4)
        assert drawn[0].info["strength"] == str(strength)
        assert drawn[0].info["prompt"] == PROMPT
    schedule = tiny_dalle2.decoder.schedule
    taken = [len(settings.timesteps(schedule)) for settings in spy.settings]
    assert taken == sorted(taken)
    assert taken[0] < taken[2] == 4
    assert spy.latents[2] is None
    fresh = tiny_dalle2.generate(PROMPT, decoder_steps=4)
    assert np.abs(pixels(drawn[0]) - pixels(fresh[0])).max() <= 2  # nothing shows through


def half_mask(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """White on the left."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def test_white_is_painted_anew_and_black_stays(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    drawn = tiny_dalle2.redraw(pictures[0], PROMPT, mask=half_mask(), count=2)
    own = pixels(pictures[0])
    for picture in drawn:
        assert np.abs(pixels(picture)[:, 32:] - own[:, 32:]).max() <= 1
        assert np.abs(pixels(picture)[:, :32] - own[:, :32]).mean() > 5
    assert apart(*drawn) > 0


def test_a_white_mask_leaves_nothing(tiny_dalle2: DALLE2, pictures: list[Image.Image]) -> None:
    white = Image.new("L", (64, 64), 255)
    drawn = tiny_dalle2.redraw(pictures[0], PROMPT, mask=white)
    assert np.abs(pixels(drawn[0]) - pixels(tiny_dalle2.generate(PROMPT)[0])).max() <= 2


def test_a_ddpm_redraws_without_a_prompt(tiny_ddpm: DALLE2, pictures: list[Image.Image]) -> None:
    drawn = tiny_ddpm.redraw(pictures[0], strength=0.5)
    assert drawn[0].size == (16, 16)
    with pytest.raises(UsageError, match="the model's CLIP: got None"):
        tiny_ddpm.variations(pictures[0])


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta": -0.1}, "eta: got -0.1"),
        ({"eta": float("nan")}, "eta: got nan"),
        ({"count": 0}, "count: got 0"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"decoder_steps": 21}, "decoder_steps"),
    ],
)
def test_bad_variations_are_refused_by_name(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_dalle2.variations(pictures[0], **arguments)


def test_one_picture_has_no_way(tiny_dalle2: DALLE2, pictures: list[Image.Image]) -> None:
    with pytest.raises(UsageError, match="pictures: got 1, expected at least two"):
        tiny_dalle2.interpolate(pictures[:1])
    with pytest.raises(UsageError, match="count: got 1"):
        tiny_dalle2.interpolate(pictures, count=1)


@pytest.mark.parametrize("theta", [0.0, -0.5, 1.5, float("nan")])
def test_theta_out_of_range_is_refused(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], theta: float
) -> None:
    with pytest.raises(UsageError, match="theta: got"):
        tiny_dalle2.edit(pictures[0], "a lemon mug", "a kiwi mug", theta=theta)


def test_texts_that_mean_the_same_are_refused(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    with pytest.raises(UsageError, match="another text than before"):
        tiny_dalle2.edit(pictures[0], PROMPT, PROMPT)
    with pytest.raises(UsageError, match="after: got ''"):
        tiny_dalle2.edit(pictures[0], PROMPT, "")


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5, float("nan")])
def test_strength_out_of_range_is_refused(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], strength: float
) -> None:
    with pytest.raises(UsageError, match="strength: got"):
        tiny_dalle2.redraw(pictures[0], PROMPT, strength=strength)


def test_masks_that_cannot_be_meant_are_refused(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    with pytest.raises(UsageError, match=r"mask: got \(32, 32\), expected \(64, 64\)"):
        tiny_dalle2.redraw(pictures[0], PROMPT, mask=half_mask((32, 32)))
    with pytest.raises(UsageError, match="black all over"):
        tiny_dalle2.redraw(pictures[0], PROMPT, mask=Image.new("L", (64, 64), 0))
    outside = Image.new("L", (200, 64), 0)
    outside.paste(255, (0, 0, 20, 64))  # left of the square that is seen
    with pytest.raises(UsageError, match="black all over"):
        tiny_dalle2.redraw(Image.new("RGB", (200, 64)), PROMPT, mask=outside)
    with pytest.raises(UsageError, match="prompts: got"):
        tiny_dalle2.redraw(pictures[0])


@pytest.mark.parametrize("name", ["prior_steps", "prior_guidance_scale", "decoder_sampler"])
def test_settings_that_mean_nothing_for_given_pictures_are_refused(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], name: str
) -> None:
    with pytest.raises(UsageError, match=f"setting of an edit: got '{name}'"):
        tiny_dalle2.variations(pictures[0], **{name: 2})
    info = tiny_dalle2.variations(pictures[0], count=1)[0].info
    assert name not in info
    assert "decoder_steps" in info


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("redraw", {"prompt": PROMPT, "strength": 0.5}),
        ("redraw", {"prompt": PROMPT, "mask": True}),
        ("redraw", {"prompt": PROMPT, "mask": True, "strength": 0.7}),
        ("edit", {"before": "a lemon mug", "after": "a kiwi mug"}),
        ("interpolate", {}),
    ],
)
def test_nothing_depends_on_how_many_are_drawn_at_once(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], name: str, arguments: dict[str, Any]
) -> None:
    if arguments.get("mask"):
        arguments = {**arguments, "mask": half_mask((64, 64))}
    given = pictures if name == "interpolate" else pictures[0]

    def draw(batch_size: int) -> list[Image.Image]:
        return getattr(tiny_dalle2, name)(given, count=4, batch_size=batch_size, **arguments)

    for one, other in zip(draw(4), draw(3), strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 2


def test_a_mask_with_strength_keeps_forms_where_it_is_white(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    masked = tiny_dalle2.redraw(pictures[0], PROMPT, mask=half_mask((64, 64)), strength=0.3)[0]
    anew = tiny_dalle2.redraw(pictures[0], PROMPT, mask=half_mask((64, 64)))[0]
    differs = np.abs(pixels(masked) - pixels(anew)).max(axis=2)
    white = np.asarray(half_mask((64, 64))) > 0
    assert differs[white].mean() > 1
    assert differs[~white].max() <= 1


def test_what_is_transparent_in_a_mask_is_painted_anew(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    mask = half_mask((64, 64))
    clear = Image.merge("LA", (Image.new("L", mask.size, 0), Image.eval(mask, lambda v: 255 - v)))
    one, other = (tiny_dalle2.redraw(pictures[0], PROMPT, mask=m)[0] for m in (mask, clear))
    assert np.array_equal(pixels(one), pixels(other))


@pytest.mark.parametrize("colour", ["red", "blue", (255, 255, 0)])
def test_masks_with_colours_are_refused(
    tiny_dalle2: DALLE2, pictures: list[Image.Image], colour: Any
) -> None:
    mask = Image.new("RGB", (64, 64), "white")
    mask.paste(colour, (0, 0, 20, 20))
    with pytest.raises(UsageError, match="mask: got 'colours', expected black, white and greys"):
        tiny_dalle2.redraw(pictures[0], PROMPT, mask=mask)


def test_no_guidance_is_the_default_also_where_none_is_said(
    tiny_dalle2: DALLE2, pictures: list[Image.Image]
) -> None:
    picture = tiny_dalle2.variations(pictures[0], count=1, guidance_scale=None)[0]
    assert picture.info["guidance_scale"] == "1.0"
