import pytest
import torch
from torch import Tensor

from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import Condition, guide, threshold
from armchair.diffusion.process import Prediction

X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
T = torch.tensor([5, 5, 5])
CONDITION = {"text": torch.tensor([1.0, 2.0, 3.0])}
NULL = {"text": torch.zeros(3)}


def toy(x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
    shift = condition["text"].view(-1, 1, 1, 1)
    return Prediction(x_t * 0.5 + shift, torch.sigmoid(x_t + shift))


def test_a_scale_of_one_is_no_guidance() -> None:
    asked = []

    def counting(x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        asked.append(len(x_t))
        return toy(x_t, t, condition)

    found = guide(counting, CONDITION, NULL, scale=1.0)(X, T)
    assert torch.equal(found.x_0, toy(X, T, CONDITION).x_0)
    assert asked == [3]


def test_guidance_is_the_papers() -> None:
    found = guide(toy, CONDITION, NULL, scale=3.0)(X, T)
    conditional, unconditional = toy(X, T, CONDITION), toy(X, T, NULL)
    expected = unconditional.x_0 + 3 * (conditional.x_0 - unconditional.x_0)
    torch.testing.assert_close(found.x_0, expected)
    assert found.variance_fraction is not None
    torch.testing.assert_close(found.variance_fraction, conditional.variance_fraction)


def test_the_null_branch_depends_on_x_t() -> None:
    """A rival drops the noised input together with the condition."""
    x = X.clone().requires_grad_()
    null_alone = guide(
        lambda x, t, c: toy(x, t, {"text": 0 * c["text"]}), CONDITION, NULL, scale=2.0
    )
    null_alone(x, T).x_0.sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


def test_static_thresholds_clip() -> None:
    wild = lambda x, t: Prediction(x * 10)  # noqa: E731
    found = threshold(wild)(X, T).x_0
    assert torch.equal(found, (X * 10).clamp(-1, 1))
    assert threshold(wild, bound=2.0)(X, T).x_0.abs().max() == 2


def test_dynamic_thresholds_scale_each_example_by_itself() -> None:
    x = torch.stack([X[0] * 10, X[1] * 0.01])
    same = lambda x, t: Prediction(x)  # noqa: E731
    found = threshold(same, percentile=0.9)(x, T[:2]).x_0
    limit = x[0].abs().flatten().quantile(0.9)
    torch.testing.assert_close(found[0], x[0].clamp(-limit, limit) / limit)
    assert torch.equal(found[1], x[1])  # within bounds: left as it is


@pytest.mark.parametrize("scale", [0.99, -1.0, float("nan"), float("inf")])
def test_a_scale_below_one_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="guidance_scale"):
        guide(toy, CONDITION, NULL, scale=scale)


@pytest.mark.parametrize("percentile", [None, 0.9])
def test_infinities_are_left_for_the_samplers_to_refuse(percentile: float | None) -> None:
    x = X.clone()
    x[0].view(-1)[3] = float("inf")
    found = threshold(lambda x, t: Prediction(x), percentile=percentile)(x, T).x_0
    assert found[0].view(-1)[3] == float("inf")
    assert found.isfinite().sum() == x.numel() - 1


def test_thresholds_out_of_range_are_refused() -> None:
    same = lambda x, t: Prediction(x)  # noqa: E731
    with pytest.raises(ConfigError, match="bound"):
        threshold(same, bound=0.0)
    with pytest.raises(ConfigError, match="percentile"):
        threshold(same, percentile=1.0)
