import numpy as np
import pytest
import torch
from torch import nn

from armchair.nn.panels import (
    PANEL,
    add_transposed,
    filled,
    in_panels,
    multiply,
    pack_linear,
)

DTYPES = [torch.float32, torch.bfloat16, torch.int8]


def stored(weight, dtype):
    """The numbers that are kept of a layer's weights."""
    if dtype != torch.int8:
        return weight.to(dtype).float()
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


def products(rows, panels):
    """All rows times all panels."""
    num_panels, count, _ = panels.shape
    flat = panels.contiguous().flatten()
    array = (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()
    sums = np.zeros((len(rows), num_panels * PANEL), np.float32)
    multiply(
        *(rows.flatten().numpy(), 0, count, len(rows)),
        *(array, 0, count * PANEL, num_panels, count),
        *(sums.reshape(-1), 0, num_panels * PANEL),
    )
    return torch.from_numpy(sums)


def test_panels_are_sixteen_outputs_side_by_side():
    weight = torch.arange(20.0 * 3).view(20, 3)
    panels = in_panels(weight)
    assert panels.shape == (2, 3, 16)
    assert panels[0, 2].tolist() == weight[:16, 2].tolist()
    assert panels[1, 1].tolist() == [*weight[16:, 1].tolist(), *[0.0] * 12]
    assert [filled(count) for count in (1, 16, 17)] == [16, 16, 32]


@pytest.mark.parametrize("outputs", [1, 16, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_laid_out_as_any_matrix(outputs, dtype):
    linear = nn.Linear(5, outputs)
    assert torch.equal(pack_linear(linear, dtype)[0], in_panels(linear.weight.detach().to(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", range(1, 10))
@pytest.mark.parametrize("outputs", [5, 16, 48, 100, 144])
def test_products_are_those_of_the_stored_weights(dtype, num_rows, outputs):
    torch.manual_seed(num_rows)
    linear, rows = nn.Linear(37, outputs), torch.randn(num_rows, 37)
    panels, (scale, bias) = pack_linear(linear, dtype)
    assert panels.dtype == dtype
    found = (products(rows, panels) * scale + bias)[:, :outputs]
    expected = rows @ stored(linear.weight.detach(), dtype).T + linear.bias.detach()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_beside_any_others(dtype):
    torch.manual_seed(0)
    rows, (panels, _) = torch.randn(11, 300), pack_linear(nn.Linear(300, 112), dtype)
    together = products(rows, panels)
    for part in ([0], [10], [3, 4], [1, 5, 9], [2, 3, 4, 5], list(range(4, 11))):
        assert torch.equal(products(rows[part], panels), together[part])


def test_weights_of_nothing_stay_nothing():
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.zero_()
    panels, (scale, bias) = pack_linear(linear, torch.int8)
    assert not panels.any()
    assert torch.isfinite(scale).all()
    assert bias[:3].tolist() == linear.bias.tolist()


@pytest.mark.parametrize("num_columns", range(1, 10))
@pytest.mark.parametrize("outputs", [16, 48, 80])
def test_products_of_columns_are_added(num_columns, outputs):
    torch.manual_seed(0)
    rows, others, before = torch.randn(7, 11), torch.randn(7, outputs), torch.randn(11, outputs)
    panels = in_panels(others.T).contiguous()
    sums = before.clone()
    add_transposed(
        *(rows.flatten().numpy(), 2, 11, num_columns),
        *(panels.flatten().numpy(), 0, 7 * PANEL, outputs // PANEL, 7),
        *(sums.view(-1).numpy(), outputs, outputs),
    )
    expected = before.clone()
    columns = slice(2, 2 + num_columns)
    expected[1 : 1 + num_columns] += rows[:, columns].T @ others
    torch.testing.assert_close(sums, expected)
