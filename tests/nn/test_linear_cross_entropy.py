import pytest
import torch
from torch import nn

from armchair.nn import linear_cross_entropy as module
from armchair.nn.amx import has_amx
from armchair.nn.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference


def make(rows, classes, dim=12):
    torch.manual_seed(0)
    head = nn.Linear(dim, classes)
    x = (torch.randn(rows, dim) * 3).requires_grad_()
    return x, head, torch.randint(classes, (rows,)), torch.rand(rows)


def loss_and_gradients(function, x, head, targets, weights, scale=1.0):
    loss = function(x, head, targets, weights)
    gradients = torch.autograd.grad(scale * loss, [x, head.weight, head.bias])
    return [part.detach().double() for part in (loss, *gradients)]


@pytest.mark.parametrize(
    ("rows", "classes"), [(1, 1), (1, 5), (33, 100), (512, 7), (700, 33), (1024, 2)]
)
def test_it_is_the_reference_in_float64(rows, classes):
    x, head, targets, weights = make(rows, classes)
    found = loss_and_gradients(linear_cross_entropy, x, head, targets, weights, scale=-0.7)
    exact = x.detach().double().requires_grad_(), nn.Linear(12, classes).double()
    exact[1].load_state_dict(head.state_dict())
    wanted = loss_and_gradients(
        linear_cross_entropy_reference, *exact, targets, weights.double(), scale=-0.7
    )
    for got, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, right, atol=1e-4, rtol=1e-4)


def test_rows_of_no_weight_are_left_out(monkeypatch):
    x, head, targets, weights = make(40, 9)
    weights[::3] = 0
    expected = loss_and_gradients(linear_cross_entropy_reference, x, head, targets, weights)
    seen, run = [], module._LinearCrossEntropy.apply
    monkeypatch.setattr(
        module._LinearCrossEntropy, "apply", lambda x, *rest: seen.append(len(x)) or run(x, *rest)
    )
    found = loss_and_gradients(linear_cross_entropy, x, head, targets, weights)
    assert seen == [26]
    for got, right in zip(found, expected, strict=True):
        torch.testing.assert_close(got, right, atol=1e-5, rtol=1e-5)


def test_no_row_at_all_is_no_loss_and_no_gradient():
    x, head, targets, _ = make(4, 9)
    found = loss_and_gradients(linear_cross_entropy, x, head, targets, torch.zeros(4))
    assert all((part == 0).all() for part in found)
    found = loss_and_gradients(linear_cross_entropy, x[:0], head, targets[:0], torch.zeros(0))
    assert found[0] == 0


def test_autocast_rounds_nothing():
    x, head, targets, weights = make(33, 50)
    expected = loss_and_gradients(linear_cross_entropy, x, head, targets, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradients(linear_cross_entropy, x, head, targets, weights)
    assert all(map(torch.equal, found, expected))


@pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")
@pytest.mark.parametrize(
    ("rows", "classes"), [(1, 1), (31, 5), (33, 100), (512, 32), (700, 33), (1056, 300)]
)
def test_in_tiles_the_loss_is_float32_and_gradients_are_rounded_once(rows, classes):
    x, head, targets, weights = make(rows, classes, dim=64)
    exact = loss_and_gradients(linear_cross_entropy_reference, x, head, targets, weights, -0.7)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(x, head, targets, weights)
        assert "Tiled" in type(loss.grad_fn).__name__
        found = loss_and_gradients(linear_cross_entropy, x, head, targets, weights, -0.7)
    torch.testing.assert_close(found[0], exact[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found[3], exact[3], atol=1e-4, rtol=1e-4)  # of the bias: not rounded
    for got, right in zip(found[1:3], exact[1:3], strict=True):
        assert got.shape == right.shape
        assert (got - right).abs().max() <= 0.01 * right.abs().max()
        assert (got - right).norm() <= 2**-8 * right.norm()


def test_large_logits_stay_finite_and_what_is_no_number_is_none():
    x, head, targets, weights = make(5, 9)
    with torch.no_grad():
        x *= 1e4
    assert all(
        part.isfinite().all()
        for part in loss_and_gradients(linear_cross_entropy, x, head, targets, weights)
    )
    with torch.no_grad():
        x[2, 3] = torch.nan
    assert linear_cross_entropy(x, head, targets, weights).isnan()


def test_it_has_the_same_bits_whatever_the_threads():
    given = make(600, 50)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            loss, *gradients = loss_and_gradients(linear_cross_entropy, *given)
            found.append((loss, gradients[2]))  # products are torch's
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_without_a_gradient_it_is_the_same_loss():
    given = make(33, 50)
    loss = linear_cross_entropy(*given)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(*given), loss)
