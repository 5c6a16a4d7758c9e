import pytest
import torch
from torch.nn import functional as F

from armchair.core.errors import ConfigError, DataError
from armchair.models.priors.embedding_space import (
    NUM_DOTS,
    EmbeddingCodes,
    EmbeddingScale,
    components_needed,
    principal_components,
)


def unit(count, dim=8, rank=None, seed=0):
    """Unit vectors off the origin, with ever less in each direction."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, dim, generator=generator) * 0.7 ** torch.arange(dim)
    if rank is not None:
        rows[:, rank:] = 0
    rows[:, -1] += 1
    return F.normalize(rows, dim=1)


IMAGES = unit(500)
TEXTS = F.normalize(IMAGES + 0.5 * unit(500, seed=1), dim=1)


def test_the_papers_scale():
    """0.5375 a dimension in 1,024 dimensions."""
    scaled = EmbeddingScale(1024, "paper")(unit(4, 1024))
    torch.testing.assert_close(scaled.square().mean(dim=1).sqrt(), torch.full((4,), 17.2 / 32))


def test_the_unit_scale_has_a_mean_square_of_one():
    scaled = EmbeddingScale(8, "unit")(IMAGES)
    torch.testing.assert_close(scaled.square().mean(dim=1), torch.ones(500))


def test_whitened_embeddings_have_unit_variance_in_every_direction():
    scale = EmbeddingScale(8, "whiten")
    scale.fit(IMAGES)
    white = scale(IMAGES)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.mT @ white / 500, torch.eye(8), atol=1e-3, rtol=0)


def test_directions_without_variance_are_not_blown_up():
    scale = EmbeddingScale(8, "whiten")
    flat = unit(500, rank=3)
    scale.fit(flat)
    assert scale.whitening.isfinite().all()
    assert scale(flat).abs().max() < 20


def test_embeddings_that_are_all_the_same_cannot_be_whitened():
    with pytest.raises(DataError, match="all of 5 pictures the same embedding"):
        EmbeddingScale(8, "whiten").fit(unit(1).expand(5, -1))


def test_embeddings_that_are_all_the_same_have_no_codes():
    codes, same = EmbeddingCodes(8, num_components=8, num_buckets=4), unit(1).expand(5, -1)
    with pytest.raises(DataError, match="all of 5 pictures the same embedding"):
        codes.fit(same, same)


@pytest.mark.parametrize("scaling", ["paper", "unit", "whiten"])
def test_scales_come_back_and_leave_the_caller_alone(scaling):
    """A rival scaled the caller's embeddings in place."""
    scale, before = EmbeddingScale(8, scaling), IMAGES.clone()
    scale.fit(IMAGES)
    torch.testing.assert_close(scale.inverse(scale(IMAGES)), IMAGES, atol=1e-4, rtol=0)
    assert torch.equal(IMAGES, before)
    drawn = scale.inverse(torch.randn(5, 8, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(5))


def test_only_whitening_has_a_state():
    assert not EmbeddingScale(8, "unit").state_dict()
    scale, other = EmbeddingScale(8, "whiten"), EmbeddingScale(8, "whiten")
    scale.fit(IMAGES)
    other.load_state_dict(scale.state_dict())
    assert torch.equal(other(IMAGES), scale(IMAGES))


def test_components_by_falling_variance():
    mean, directions, variances = principal_components(IMAGES)
    torch.testing.assert_close(directions @ directions.mT, torch.eye(8, dtype=torch.float64))
    assert (variances.diff() <= 0).all()
    places = (IMAGES.double() - mean) @ directions.mT
    torch.testing.assert_close(places.square().mean(dim=0), variances)


def test_the_fewest_components_that_leave_out_less_than_a_hundredth():
    needed = components_needed(IMAGES)
    mean, directions, _ = principal_components(IMAGES)
    centred = IMAGES.double() - mean

    def left_out(count):
        kept = centred @ directions[:count].mT @ directions[:count]
        return ((centred - kept).square().sum() / centred.square().sum()).item()

    assert 1 < needed < 8
    assert left_out(needed) < 0.01 <= left_out(needed - 1)
    assert components_needed(unit(500, rank=2)) <= 3


def test_too_few_components_are_refused():
    needed = components_needed(IMAGES)
    codes = EmbeddingCodes(8, num_components=needed - 1, num_buckets=1024)
    with pytest.raises(ConfigError, match=f"num_components: got {needed - 1}.*at least {needed}"):
        codes.fit(IMAGES, TEXTS)


def test_codes_come_back_with_under_a_hundredth_of_error():
    """Section 2.2: the mean squared error of the reconstruction is below 1%."""
    codes = EmbeddingCodes(8, num_components=components_needed(IMAGES), num_buckets=1024)
    codes.fit(IMAGES, TEXTS)
    found = codes.encode(IMAGES)
    assert found.min() == 0
    assert found.max() == 1023
    again = codes.decode(found)
    torch.testing.assert_close(again.norm(dim=1), torch.ones(500))
    spread = (IMAGES - IMAGES.mean(dim=0)).square().sum()
    assert (again - IMAGES).square().sum() < 0.01 * spread


def test_buckets_are_of_equal_width_and_the_outermost_have_no_end():
    codes = EmbeddingCodes(8, num_components=8, num_buckets=4)
    codes.fit(IMAGES, TEXTS)
    mean, directions, _ = principal_components(IMAGES)
    place = ((IMAGES.double() - mean) @ directions.mT)[:, 0].contiguous()
    edges = torch.linspace(place.min(), place.max(), 5, dtype=torch.float64)
    expected = torch.bucketize(place, edges[1:-1])
    assert (codes.encode(IMAGES)[:, 0] != expected).float().mean() < 0.01
    far = codes.encode(torch.cat([100 * directions[:1], -100 * directions[:1]]).float())
    assert sorted(far[:, 0].tolist()) == [0, 3]


def test_dot_products_fall_into_buckets_of_equal_mass():
    codes = EmbeddingCodes(8, num_components=8, num_buckets=4)
    codes.fit(IMAGES, TEXTS)
    buckets = codes.encode_dots(IMAGES, TEXTS)
    counts = buckets.bincount(minlength=NUM_DOTS)
    assert len(counts) == NUM_DOTS
    assert counts.min() >= 500 // NUM_DOTS - 1
    dots = (IMAGES * TEXTS).sum(dim=1)
    assert dots[buckets == NUM_DOTS - 1].min() > dots[buckets == 0].max()


def test_both_are_exact_under_autocast():
    scale = EmbeddingScale(8, "whiten")
    codes = EmbeddingCodes(8, num_components=8, num_buckets=1024)
    scale.fit(IMAGES)
    codes.fit(IMAGES, TEXTS)
    exact = scale(IMAGES), scale.inverse(IMAGES), codes.encode(IMAGES)
    again = codes.decode(exact[2])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = scale(IMAGES), scale.inverse(IMAGES), codes.encode(IMAGES)
        assert torch.equal(codes.decode(exact[2]), again)
    for one, other in zip(exact, rounded, strict=True):
        assert torch.equal(one, other)
