"""What a DALL·E 2 draws from captions, with and without its parts, and how it is kept."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from armchair.core.errors import (
    BundleError,
    ConfigError,
    SamplingError,
    UsageError,
)
from armchair.models.priors.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from armchair.models.priors.one_step import OneStepPrior, OneStepPriorConfig
from armchair.models.unet import UNet
from armchair.pipelines import load
from armchair.pipelines.bundle import MANIFEST, open_bundle
from armchair.pipelines.dalle2 import DALLE2
from armchair.pipelines.dalle2_config import DALLE2SamplingConfig
from armchair.text.tokenizer import Tokenizer

PROMPT = "an armchair in the shape of an avocado"


def same(one: Image.Image, other: Image.Image) -> bool:
    """But for rounding, which batches change in the seventh digit."""
    difference = np.asarray(one).astype(int) - np.asarray(other).astype(int)
    return bool(np.abs(difference).max() <= 1)


# Drawing


def test_pictures_have_the_size_of_the_last_part_and_know_how_they_were_drawn(
    tiny_dalle2: DALLE2,
) -> None:
    assert tiny_dalle2.image_size == 64
    pictures = tiny_dalle2.generate(PROMPT, count=2, seed=5, decoder_steps=3)
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
    info = pictures[1].info
    assert (info["prompt"], info["seed"], info["index"]) == (PROMPT, "5", "1")
    assert (info["prior_steps"], info["decoder_steps"]) == ("2", "3")
    assert (info["first_upsampler_steps"], info["second_upsampler_steps"]) == ("2", "3")


def test_picture_k_of_a_seed_is_the_same_whatever_the_batch(tiny_dalle2: DALLE2) -> None:
    five = tiny_dalle2.generate(PROMPT, count=5, seed=3, guidance_scale=2.0)

    def draw(prompts: Any, **settings: Any) -> list[Image.Image]:
        return tiny_dalle2.generate(prompts, seed=3, guidance_scale=2.0, **settings)

    assert same(draw(PROMPT)[0], five[0])
    for picture, again in zip(five, draw(PROMPT, count=5, batch_size=2), strict=True):
        assert same(picture, again)
    among_others = draw(["a kiwi clock", PROMPT], count=5)[5:]
    assert all(same(a, b) for a, b in zip(five, among_others, strict=True))
    assert not same(five[0], five[1])


def test_a_lower_precision_draws_nearly_the_same(tiny_dalle2: DALLE2) -> None:
    exact, rounded = (
        tiny_dalle2.generate(PROMPT, count=3, precision=precision) for precision in ("fp32", "bf16")
    )
    differences = [
        np.abs(np.asarray(a, dtype=int) - np.asarray(b))
        for a, b in zip(exact, rounded, strict=True)
    ]
    assert 0 < np.mean(differences) < 2
    assert rounded[0].info["precision"] == "bf16"


def test_seed_prompt_and_guidance_decide(tiny_dalle2: DALLE2) -> None:
    first, guided = (tiny_dalle2.generate(PROMPT, guidance_scale=s)[0] for s in (1.0, 8.0))
    assert not same(first, guided)
    assert not same(first, tiny_dalle2.generate(PROMPT, guidance_scale=1.0, seed=1)[0])
    assert not same(guided, tiny_dalle2.generate("a kiwi clock", guidance_scale=8.0)[0])


def test_progress_counts_every_step_and_shows_the_picture_forming(tiny_dalle2: DALLE2) -> None:
    told: list[tuple[int, int]] = []
    sizes: list[int] = []

    def note(done: int, total: int, forming: Any) -> None:
        told.append((done, total))
        sizes.append(forming()[0].width)

    tiny_dalle2.generate(PROMPT, count=3, batch_size=2, on_progress=note)
    assert told == sorted(told)
    assert told[-1] == (3 * (4 + 2 + 3), 3 * (4 + 2 + 3))
    assert list(dict.fromkeys(sizes)) == [16, 32, 64]


def test_pictures_are_drawn_from_keys(tiny_dalle2: DALLE2) -> None:
    drawn = tiny_dalle2.draw([PROMPT, "a kiwi clock"], [(3, 0), (3, 7)])
    assert same(drawn[0], tiny_dalle2.generate(PROMPT, seed=3)[0])


def with_prior(model: DALLE2, prior: Any) -> DALLE2:
    assert model.clip is not None
    return DALLE2(
        model.tokenizer, model.clip.model, prior.eval(), model.decoder, model.upsamplers,
        sampling=model.sampling,
    )  # fmt: skip


def test_every_kind_of_prior_draws(tiny_dalle2: DALLE2) -> None:
    stream = tiny_dalle2.decoder.config.text
    assert stream is not None
    torch.manual_seed(0)
    by_codes = with_prior(
        tiny_dalle2,
        AutoregressivePrior(
            AutoregressivePriorConfig(
                stream=stream, embedding_dim=8, num_components=8, num_buckets=16
            )
        ),
    )
    at_once = with_prior(
        tiny_dalle2, OneStepPrior(OneStepPriorConfig(stream=stream, embedding_dim=8))
    )
    for model, count in ((by_codes, 1), (at_once, 0)):
        assert model.generate(PROMPT)[0].size == (64, 64)
        names = [name for name in model.setting_names if name.startswith("prior")]
        assert len(names) == count
        with pytest.raises(UsageError, match="prior_steps"):
            model.generate(PROMPT, prior_steps=3)


# Absent parts


def glide(model: DALLE2) -> DALLE2:
    torch.manual_seed(1)
    decoder = UNet(dataclasses.replace(model.decoder.config, embedding_dim=None)).eval()
    return DALLE2(model.tokenizer, None, None, decoder, model.upsamplers[:1])


def test_a_glide_draws_from_the_caption_alone(tiny_dalle2: DALLE2) -> None:
    model = glide(tiny_dalle2)
    pictures = model.generate(PROMPT, count=2, decoder_steps=4)
    assert pictures[0].size == (32, 32)
    assert not any(name.startswith(("prior", "second")) for name in pictures[0].info)
    with pytest.raises(UsageError, match="setting of this model: got 'prior_steps'"):
        model.generate(PROMPT, prior_steps=3)
    with pytest.raises(UsageError, match="second_upsampler_steps"):
        model.generate(PROMPT, second_upsampler_steps=3)


def test_a_ddpm_draws_without_a_prompt(tiny_ddpm: DALLE2) -> None:
    pictures = tiny_ddpm.generate(count=2)
    assert pictures[0].size == (16, 16)
    assert not same(*pictures)
    assert "prompt" not in pictures[0].info
    with pytest.raises(UsageError, match="prompts: got 'a mug', expected none"):
        tiny_ddpm.generate("a mug")
    with pytest.raises(UsageError, match="guidance_scale"):
        tiny_ddpm.generate(guidance_scale=2.0)


# Bundles


def test_a_bundle_keeps_the_model(tiny_dalle2: DALLE2, dalle2_bundle: Path) -> None:
    again = load(str(dalle2_bundle), device="cpu")
    assert isinstance(again, DALLE2)
    assert again.config == tiny_dalle2.config
    assert again.sampling == tiny_dalle2.sampling
    one, other = (m.generate(PROMPT, seed=2)[0] for m in (tiny_dalle2, again))
    difference = np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))
    assert difference.mean() < 3  # weights are kept as float16
    assert again.clip is not None
    assert {path.suffix for path in dalle2_bundle.iterdir()} == {".json", ".md", ".safetensors"}


def test_absent_parts_have_no_files(ddpm_bundle: Path, tiny_dalle2: DALLE2, tmp_path: Path) -> None:
    assert set(open_bundle(ddpm_bundle).manifest["files"]) == {"decoder.safetensors"}
    assert load(str(ddpm_bundle), device="cpu").generate()[0].size == (16, 16)
    folder = glide(tiny_dalle2).save(tmp_path / "glide", about={}, card="# glide\n").path
    assert set(open_bundle(folder).manifest["files"]) == {
        "decoder.safetensors", "first_upsampler.safetensors", "tokenizer.json",
    }  # fmt: skip
    assert load(str(folder), device="cpu").tokenizer is not None


def test_a_manifest_whose_parts_do_not_fit_is_refused(dalle2_bundle: Path) -> None:
    path = dalle2_bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["config"]["parts"]["second_upsampler"]["low_size"] = 16
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"second_upsampler\.low_size: got 16, expected 32"):
        load(str(dalle2_bundle), device="cpu")


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": ""}, "caption"),
        ({"prompts": []}, "prompts"),
        ({"prompts": "avocado " * 500}, "tokens of the caption"),
        ({"count": 0}, "count: got 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"guidance_scale": 0.5}, "guidance_scale: got 0.5"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"prior_guidance_scale": 0.0}, "prior_guidance_scale"),
        ({"prior_steps": 0}, "prior_steps: got 0"),
        ({"prior_steps": 21}, "prior_steps: got 21, expected 1 to 20"),
        ({"decoder_steps": 0}, "decoder_steps: got 0"),
        ({"decoder_steps": 21}, "decoder_steps: got 21, expected 1 to 20"),
        ({"first_upsampler_steps": 21}, "first_upsampler_steps: got 21"),
        ({"second_upsampler_steps": -1}, "second_upsampler_steps: got -1"),
        ({"prior_candidates": 0}, "prior_candidates: got 0"),
        ({"decoder_sampler": "analytic_dpm"}, "decoder_sampler: got 'analytic_dpm'"),
        ({"upsampler_sampler": "analytic_dpm"}, "upsampler_sampler: got 'analytic_dpm'"),
        ({"temperature": 1.0}, "setting of this model: got 'temperature'"),
    ],
)
def test_bad_requests_are_refused_by_name(
    tiny_dalle2: DALLE2, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tiny_dalle2.stream(**{"prompts": PROMPT, **arguments})  # before anything is drawn


def test_no_more_candidates_than_can_be_meant() -> None:
    with pytest.raises(ConfigError, match="prior_candidates: got 1001, expected 1 to 1000"):
        DALLE2SamplingConfig(prior_candidates=1001)


@pytest.mark.parametrize("name", ["prior_sampler", "decoder_sampler", "upsampler_sampler"])
def test_an_unknown_sampler_is_refused_by_name(name: str) -> None:
    settings = DALLE2SamplingConfig()
    object.__setattr__(settings, name, "dpmsolver")  # past the tests' own check of types
    with pytest.raises(UsageError, match=f"(?s){name}: got 'dpmsolver'.*did you mean 'dpm_solver'"):
        settings.__post_init__()


def test_a_nan_stops_it_by_name(tiny_dalle2: DALLE2) -> None:
    decoder = UNet(tiny_dalle2.decoder.config).eval()
    with torch.no_grad():
        decoder.head.bias.fill_(math.nan)
    assert tiny_dalle2.clip is not None
    broken = DALLE2(
        tiny_dalle2.tokenizer, tiny_dalle2.clip.model, tiny_dalle2.prior, decoder,
        sampling=tiny_dalle2.sampling,
    )  # fmt: skip
    with pytest.raises(SamplingError, match="the decoder: the prediction of x_0 at timestep 19"):
        broken.generate(PROMPT)


def test_parts_that_do_not_fit_are_refused(tiny_dalle2: DALLE2) -> None:
    config = tiny_dalle2.config
    upsampler = config.second_upsampler
    assert upsampler is not None
    assert config.clip is not None
    for changes, message in (
        ({"prior": None}, "prior.embedding_dim: got None, expected 8"),
        ({"clip": None}, "prior.embedding_dim: got 8, expected None"),
        ({"clip": dataclasses.replace(config.clip, text_length=7)}, "prior.stream: got"),
        ({"first_upsampler": None}, "first_upsampler: got None"),
        ({"first_upsampler": upsampler}, r"first_upsampler\.low_size: got 32, expected 16"),
        ({"first_upsampler": config.decoder}, "first_upsampler: got"),
        (
            {"second_upsampler": dataclasses.replace(upsampler, attention_sizes=(32,), head_dim=8)},
            r"second_upsampler\.attention_sizes: got \(32,\), expected none",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(config, **changes)


def test_a_tokenizer_that_does_not_fit_the_parts_is_refused(tiny_dalle2: DALLE2) -> None:
    given, merges = tiny_dalle2.tokenizer, tiny_dalle2.tokenizer.table.merges
    assert tiny_dalle2.clip is not None
    parts = (tiny_dalle2.clip.model, tiny_dalle2.prior, tiny_dalle2.decoder)
    longer = dataclasses.replace(given.config, context_length=given.config.context_length + 1)
    for tokenizer, found in ((None, "None"), (Tokenizer(longer, merges), r"\(")):
        with pytest.raises(ConfigError, match=f"tokenizer: got {found}"):
            DALLE2(tokenizer, *parts)
