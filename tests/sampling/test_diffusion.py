import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

import contracts
from armchair.core.errors import ConfigError, SamplingError, UnknownNameError
from armchair.diffusion.guidance import guide, threshold
from armchair.diffusion.process import Prediction, ProcessConfig
from armchair.diffusion.samplers import ddim, ddpm, dpm_solver, keyed_noise, mean_squared_errors
from armchair.diffusion.schedules import cosine_schedule, even_timesteps, log_snr_timesteps
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNet, UNetConfig
from armchair.sampling import diffusion
from armchair.sampling.diffusion import (
    DiffusionSampling,
    Known,
    invert_images,
    measure_errors,
    noise_images,
    sample_embeddings,
    sample_images,
)

STREAM = TextStreamConfig(vocab_size=11, text_length=5, dim=16, num_layers=1, num_heads=2)
DECODER = UNetConfig(
    image_size=8,
    channels=8,
    multipliers=(1, 2),
    num_blocks=1,
    process=ProcessConfig(num_timesteps=20, parameterisation="v", learned_variance=True),
    attention_sizes=(4,),
    head_dim=4,
    dropout=0.3,
    text=STREAM,
    embedding_dim=6,
)
UPSAMPLER = UNetConfig(
    image_size=8,
    low_size=2,
    channels=8,
    multipliers=(1, 2),
    num_blocks=1,
    process=ProcessConfig(num_timesteps=20, parameterisation="x_0"),
)
PRIOR = DiffusionPriorConfig(
    stream=STREAM,
    embedding_dim=6,
    process=ProcessConfig(num_timesteps=20, parameterisation="x_0"),
)
KEYS = [(7, 0), (7, 1), (8, 0)]
GIVEN = {
    "text": torch.tensor([[1, 2, 3, 14, 15], [4, 5, 6, 7, 8], [9, 12, 13, 14, 15]]),
    "embedding": F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), dim=1),
}
TEXT, TEXT_EMBEDDINGS = GIVEN["text"], GIVEN["embedding"]
LOW = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


def awake(build, std=0.1):
    """A model with random numbers where a new one has zeros."""
    model, generator = contracts.seeded(build), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def decoder():
    return awake(lambda: UNet(DECODER))


@pytest.fixture
def upsampler():
    return awake(lambda: UNet(UPSAMPLER))


@pytest.fixture
def prior():
    return awake(lambda: DiffusionPrior(PRIOR))


def settings(**changes):
    return DiffusionSampling(**{"num_steps": 4, **changes})


def rows(condition, which):
    return {name: value[which] for name, value in condition.items()}


# Pictures


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@torch.no_grad()
def test_pictures_are_what_the_sampler_draws(decoder, sampler, guidance_scale):
    found = sample_images(
        decoder,
        GIVEN,
        keys=KEYS,
        settings=settings(sampler=sampler, guidance_scale=guidance_scale),
    )
    decoder.eval()
    condition, null = decoder.encode(GIVEN), decoder.encode(decoder.null(GIVEN))
    denoise = threshold(guide(decoder.denoise, condition, null, scale=guidance_scale))
    noise = keyed_noise(KEYS, (3, 8, 8), purpose="pictures 8")
    start, schedule = (denoise, noise(0), decoder.schedule), decoder.schedule
    arguments = (*start, even_timesteps(20, 4))
    expected = {
        "ddpm": lambda: ddpm(*arguments, noise=noise, variance="learned"),
        "ddim": lambda: ddim(*arguments),
        "dpm_solver": lambda: dpm_solver(*start, log_snr_timesteps(schedule, 4)),
    }[sampler]()
    assert torch.equal(found, expected)
    assert found.shape == (3, 3, 8, 8)
    assert found.abs().max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for a GPU")
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_recorded_network_draws_what_it_would_draw_anyhow(
    decoder, prior, guidance_scale, monkeypatch
):
    decoder.cuda()
    prior.cuda()
    how = settings(num_steps=6, guidance_scale=guidance_scale, sampler="dpm_solver")

    def drawn():
        embeddings = sample_embeddings(prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=how)
        return sample_images(decoder, GIVEN, keys=KEYS, settings=how), embeddings

    recorded = drawn()
    monkeypatch.setattr(diffusion, "graphed", lambda function, device: function)
    for found, expected in zip(recorded, drawn(), strict=True):
        assert torch.equal(found, expected)


def test_without_a_learned_variance_the_small_one_serves(upsampler):
    drawn = sample_images(upsampler, {"low": LOW}, keys=KEYS, settings=settings(sampler="ddpm"))
    assert drawn.shape == (3, 3, 8, 8)
    again = sample_images(upsampler, {"low": LOW}, keys=KEYS, settings=settings(sampler="ddpm"))
    assert torch.equal(drawn, again)


def test_an_upsampler_enlarges_whatever_it_gets(upsampler):
    wide = torch.rand(3, 3, 4, 4) * 2 - 1
    for low, size in ((LOW, 8), (wide, 16)):
        drawn = sample_images(upsampler, {"low": low}, keys=KEYS, settings=settings())
        assert drawn.shape == (3, 3, size, size)


def test_a_ddpm_needs_nothing_but_keys():
    plain = dataclasses.replace(DECODER, text=None, embedding_dim=None)
    drawn = sample_images(awake(lambda: UNet(plain)), {}, keys=KEYS, settings=settings())
    assert drawn.shape == (3, 3, 8, 8)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_a_picture_does_not_depend_on_its_batch(decoder, sampler, guidance_scale):
    how = settings(sampler=sampler, guidance_scale=guidance_scale)
    together = sample_images(decoder, GIVEN, keys=KEYS, settings=how)
    for which in ([0], [2], [2, 0]):
        keys = [KEYS[row] for row in which]
        drawn = sample_images(decoder, rows(GIVEN, which), keys=keys, settings=how)
        torch.testing.assert_close(drawn, together[which], atol=1e-4, rtol=0)


def test_the_key_decides_and_the_global_stream_does_not(decoder):
    first = sample_images(decoder, GIVEN, keys=KEYS, settings=settings())
    torch.rand(5)
    assert torch.equal(sample_images(decoder, GIVEN, keys=KEYS, settings=settings()), first)
    other = sample_images(decoder, GIVEN, keys=[(9, k) for k in range(3)], settings=settings())
    assert not torch.equal(other, first)


def test_captions_are_read_once_a_drawing_and_no_guidance_costs_no_second_branch(
    decoder, monkeypatch
):
    read, batches = [], []
    encode, forward = decoder.encode, decoder.forward
    monkeypatch.setattr(decoder, "encode", lambda c: read.append(1) or encode(c))
    monkeypatch.setattr(
        decoder, "forward", lambda x, t, c: batches.append(len(x)) or forward(x, t, c)
    )
    sample_images(decoder, GIVEN, keys=KEYS, settings=settings())
    assert (len(read), batches) == (1, [3] * 4)
    sample_images(decoder, GIVEN, keys=KEYS, settings=settings(guidance_scale=2.0))
    assert (len(read), batches[4:]) == (3, [6] * 4)


def test_dynamic_thresholds_are_applied(decoder):
    plain = sample_images(decoder, GIVEN, keys=KEYS, settings=settings(guidance_scale=30.0))
    scaled = sample_images(
        decoder, GIVEN, keys=KEYS, settings=settings(guidance_scale=30.0, percentile=0.9)
    )
    assert not torch.equal(plain, scaled)
    assert scaled.abs().max() <= 1


def test_steps_are_told_with_the_pictures_so_far(decoder):
    told = []
    drawn = sample_images(
        decoder, GIVEN, keys=KEYS, settings=settings(), on_step=lambda *at: told.append(at)
    )
    assert [at[:2] for at in told] == [(done, 4) for done in range(1, 5)]
    assert torch.equal(told[-1][2], drawn)


def test_dropout_is_off_and_the_mode_given_back(decoder, prior):
    decoder.train()
    first = sample_images(decoder, GIVEN, keys=KEYS, settings=settings())
    assert decoder.training
    assert not first.requires_grad
    assert torch.equal(sample_images(decoder.eval(), GIVEN, keys=KEYS, settings=settings()), first)
    assert not decoder.training
    prior.train()
    sample_embeddings(prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings())
    assert prior.training


# Embeddings


def test_the_candidate_that_fits_best_is_kept(prior, monkeypatch):
    """A model that takes noise for the answer draws the noise itself."""
    monkeypatch.setattr(prior, "denoise", lambda x_t, t, condition, network: Prediction(x_t))
    for count in (1, 2, 8):
        found = sample_embeddings(
            prior,
            TEXT,
            TEXT_EMBEDDINGS,
            keys=KEYS,
            settings=settings(num_steps=1),
            candidates=count,
        )
        drawn = [
            F.normalize(keyed_noise(KEYS, (6,), purpose=f"prior, candidate {number}")(0), dim=1)
            for number in range(count)
        ]
        dots = torch.stack([(one * TEXT_EMBEDDINGS).sum(dim=1) for one in drawn])
        expected = [drawn[best][row] for row, best in enumerate(dots.argmax(dim=0))]
        torch.testing.assert_close(found, torch.stack(expected))
        torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_two_is_the_papers_number_of_candidates(prior):
    default = sample_embeddings(prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings())
    two = sample_embeddings(
        prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings(), candidates=2
    )
    assert torch.equal(default, two)


@pytest.mark.parametrize("scaling", ["paper", "unit", "whiten"])
def test_a_candidate_is_what_the_sampler_draws_unscaled(scaling):
    model = awake(lambda: DiffusionPrior(dataclasses.replace(PRIOR, scaling=scaling))).eval()
    found = sample_embeddings(
        model, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings(), candidates=1
    )
    condition = model.encode({"text": TEXT, "text_embedding": TEXT_EMBEDDINGS})
    noise = keyed_noise(KEYS, (6,), purpose="prior, candidate 0")
    with torch.no_grad():
        drawn = dpm_solver(
            lambda x, t: model.denoise(x, t, condition),
            noise(0),
            model.schedule,
            log_snr_timesteps(model.schedule, 4),
        )
    assert torch.equal(found, model.scale.inverse(drawn))


def test_an_embedding_does_not_depend_on_its_batch(prior):
    def draw(which):
        return sample_embeddings(
            prior,
            TEXT[which],
            TEXT_EMBEDDINGS[which],
            keys=[KEYS[row] for row in which],
            settings=settings(sampler="ddpm", guidance_scale=2.0),
        )

    together = draw([0, 1, 2])
    for which in ([0], [1], [2, 0]):
        torch.testing.assert_close(draw(which), together[which], atol=1e-4, rtol=0)


def test_the_key_decides_the_embedding(prior):
    first, again, other = (
        sample_embeddings(prior, TEXT, TEXT_EMBEDDINGS, keys=keys, settings=settings())
        for keys in (KEYS, KEYS, [(9, number) for number in range(3)])
    )
    assert torch.equal(first, again)
    assert (first - other).abs().amax(dim=1).min() > 1e-5


# What ends it


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_ends_it_by_name(decoder, upsampler, prior, value):
    for model in (decoder, upsampler, prior):
        with torch.no_grad():
            model.head.bias.fill_(value)
    message = r": the prediction of x_0 at timestep 19: got 'a value that is not finite'"
    with pytest.raises(SamplingError, match=f"the decoder{message}"):
        sample_images(decoder, GIVEN, keys=KEYS, settings=settings())
    with pytest.raises(SamplingError, match=f"{upsampler.role}{message}"):
        sample_images(upsampler, {"low": LOW}, keys=KEYS, settings=settings())
    with pytest.raises(SamplingError, match=f"the prior{message}"):
        sample_embeddings(prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings())
    with pytest.raises(SamplingError, match="lower the guidance scale"):
        sample_images(decoder, GIVEN, keys=KEYS, settings=settings(guidance_scale=2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps: got 0"),
        ({"guidance_scale": 0.5}, "guidance_scale: got 0.5"),
        ({"guidance_scale": math.nan}, "guidance_scale: got nan"),
        ({"percentile": 1.0}, "percentile: got 1.0"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_what_does_not_fit_is_refused(decoder, upsampler, prior):
    plain = dataclasses.replace(DECODER, text=None, embedding_dim=None)
    with pytest.raises(ConfigError, match="num_steps: got 21, expected 1 to 20"):
        sample_images(decoder, GIVEN, keys=KEYS, settings=settings(num_steps=21))
    with pytest.raises(ConfigError, match="got 3, expected a row for each of 2 keys"):
        sample_images(decoder, GIVEN, keys=KEYS[:2], settings=settings())
    with pytest.raises(ConfigError, match=r"condition: got .'text'."):
        sample_images(decoder, {"text": TEXT}, keys=KEYS, settings=settings())
    with pytest.raises(ConfigError, match=r"guidance_scale: got 2\.0, expected 1, as"):
        sample_images(upsampler, {"low": LOW}, keys=KEYS, settings=settings(guidance_scale=2.0))
    with pytest.raises(ConfigError, match="keys: got"):
        sample_images(awake(lambda: UNet(plain)), {}, keys=[], settings=settings())
    with pytest.raises(ConfigError, match="candidates: got 0"):
        sample_embeddings(
            prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings(), candidates=0
        )
    with pytest.raises(ConfigError, match="percentile"):
        sample_embeddings(
            prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings(percentile=0.9)
        )


# The best variance


@torch.no_grad()
def test_analytic_steps_use_what_was_measured(prior):
    how = settings(sampler="analytic_dpm")

    def draw(settings):
        return sample_embeddings(
            prior, TEXT, TEXT_EMBEDDINGS, keys=KEYS, settings=settings, candidates=1
        )

    with pytest.raises(ConfigError, match="none measured"):
        draw(how)
    measure_errors(prior, TEXT, TEXT_EMBEDDINGS, TEXT_EMBEDDINGS.flip(0), num_steps=4)
    condition = prior.encode({"text": TEXT, "text_embedding": TEXT_EMBEDDINGS})
    expected = mean_squared_errors(
        lambda x, t: prior.denoise(x, t, condition),
        prior.scale(TEXT_EMBEDDINGS.flip(0)),
        prior.schedule,
        even_timesteps(20, 4),
        noise=keyed_noise([(0, 0), (0, 1), (0, 2)], (6,), purpose="measure"),
    )
    torch.testing.assert_close(prior.mean_squared_errors.double(), expected, rtol=1e-5, atol=0)
    assert (prior.mean_squared_errors >= 0).sum() == 4
    measured = draw(how)
    prior.mean_squared_errors.fill_(0.0)  # as of a prior that knows its data
    torch.testing.assert_close(draw(how), draw(settings(sampler="ddpm")))
    assert not torch.equal(draw(how), measured)


def test_analytic_steps_are_for_embeddings(decoder):
    with pytest.raises(UnknownNameError, match="sampler of pictures: got 'analytic_dpm'"):
        sample_images(decoder, GIVEN, keys=KEYS, settings=settings(sampler="analytic_dpm"))


# Pictures that are given


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_an_inverted_picture_is_drawn_again(decoder):
    how = settings(num_steps=20, sampler="ddim")
    with torch.no_grad():
        for parameter in decoder.parameters():  # a smooth field, as a trained one is
            parameter.mul_(0.3)
    drawn = sample_images(decoder, GIVEN, keys=KEYS, settings=how)
    latents = invert_images(decoder, GIVEN, drawn, settings=how)
    again = sample_images(decoder, GIVEN, keys=KEYS, settings=how, latents=latents)
    torch.testing.assert_close(again, drawn, atol=0.05, rtol=0)


def test_eta_draws_anew_from_the_same_latents(decoder):
    latents = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))

    def draw(eta, keys):
        how = settings(num_steps=10, sampler="ddim", eta=eta)
        return sample_images(decoder, GIVEN, keys=keys, settings=how, latents=latents)

    other = [(9, k) for k in range(3)]
    assert torch.equal(draw(0.0, KEYS), draw(0.0, other))
    assert not torch.equal(draw(1.0, KEYS), draw(1.0, other))


def test_noise_is_as_much_as_the_first_step_begins_with(decoder):
    how, schedule = settings(num_steps=10, strength=0.5), decoder.schedule
    assert settings(num_steps=10, strength=0.01).timesteps(schedule) == [0]
    assert settings(num_steps=10).timesteps(schedule) == log_snr_timesteps(schedule, 10)
    for sampler in ("ddim", "ddpm", "analytic_dpm"):
        even = settings(num_steps=10, sampler=sampler).timesteps(schedule)
        assert even == even_timesteps(20, 10)
    first = how.timesteps(schedule)[0]
    assert first == 9
    noise = keyed_noise(KEYS, (3, 8, 8), purpose="pictures 8")(0)
    share = float(decoder.schedule.alpha_bar[first])
    expected = share**0.5 * IMAGES + (1 - share) ** 0.5 * noise
    found = noise_images(decoder, IMAGES, keys=KEYS, settings=how)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 20, 250, 1000])
def test_strength_alone_says_how_much_noise_there_is_at_first(sampler, num_steps):
    schedule = cosine_schedule(1000)
    for percent in range(1, 101):
        how = settings(num_steps=num_steps, sampler=sampler, strength=percent / 100)
        visited = how.timesteps(schedule)
        assert visited[0] == 10 * percent - 1
        assert len(visited) == max(1, min(round(percent / 100 * num_steps), 10 * percent))
        assert visited == sorted(set(visited), reverse=True)
        assert visited[-1] == 0 or len(visited) == 1


def test_no_more_steps_than_timesteps_whatever_the_strength(decoder):
    for strength in (0.1, 1.0):
        with pytest.raises(ConfigError, match="num_steps: got 21, expected 1 to 20"):
            settings(num_steps=21, strength=strength).timesteps(decoder.schedule)


def test_weak_noise_leaves_more_of_a_picture(decoder):
    """Shown by a model that takes whatever it gets for a clean picture."""
    decoder.denoise = lambda x_t, t, condition, network: Prediction(x_t)
    moved = []
    for strength in (0.1, 0.5, 1.0):
        how = settings(num_steps=10, sampler="ddim", strength=strength)
        latents = noise_images(decoder, IMAGES, keys=KEYS, settings=how)
        drawn = sample_images(decoder, GIVEN, keys=KEYS, settings=how, latents=latents)
        moved.append(float((drawn - IMAGES).abs().mean()))
    assert moved == sorted(moved)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_what_is_known_stays(decoder, sampler):
    painted = torch.zeros(3, 1, 8, 8)
    painted[..., :4] = 1
    how, known = settings(sampler=sampler), Known(IMAGES, painted)
    drawn = sample_images(decoder, GIVEN, keys=KEYS, settings=how, known=known)
    torch.testing.assert_close(drawn[..., 4:], IMAGES[..., 4:])
    assert (drawn[..., :4] - IMAGES[..., :4]).abs().mean() > 0.1
    everywhere = Known(IMAGES, torch.ones(3, 1, 8, 8))
    free = sample_images(decoder, GIVEN, keys=KEYS, settings=how)
    found = sample_images(decoder, GIVEN, keys=KEYS, settings=how, known=everywhere)
    torch.testing.assert_close(found, free, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": -0.1, "sampler": "ddim"}, "eta: got -0.1, expected at least 0"),
        ({"eta": 0.5}, "eta: got 0.5, expected 0, as the sampler is not ddim"),
        ({"strength": 0.0}, "strength: got 0.0, expected above 0"),
        ({"strength": 1.1}, "strength: got 1.1"),
    ],
)
def test_settings_of_edits_that_make_no_sense(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_part_of_the_steps_needs_something_to_begin_with(decoder):
    with pytest.raises(
        ConfigError, match=r"strength: got 0\.5, expected 1, as there are no latents"
    ):
        sample_images(decoder, GIVEN, keys=KEYS, settings=settings(strength=0.5))
