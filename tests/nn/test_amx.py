import numpy as np
import pytest
import torch

from armchair.core.jit import jit
from armchair.core.threads import as_array
from armchair.nn.amx import BLOCK, TILE, configure_tiles, has_amx, multiply_tiles, release_tiles

pytestmark = pytest.mark.skipif(not has_amx(), reason="this processor has no AMX")


@jit()
def multiply(high, wide, is_added, rows, distance, columns, steps, sums):
    configure_tiles()
    multiply_tiles(
        high, wide, is_added, rows, 0, distance, BLOCK, columns, 0, steps * TILE * BLOCK, steps,
        sums, 0, BLOCK,
    )  # fmt: skip
    release_tiles()


def product(rows, matrix, high=2, wide=2, before=None):
    """Rows times a matrix, both of bfloat16."""
    terms = rows.shape[1]
    in_pairs = matrix.view(terms // 2, 2, -1, TILE).permute(2, 0, 3, 1).contiguous()
    sums = torch.zeros(BLOCK, BLOCK) if before is None else before.clone()
    multiply(
        *(high, wide, before is not None, as_array(rows), terms, as_array(in_pairs)),
        *(terms // BLOCK, as_array(sums)),
    )
    return sums


@pytest.mark.parametrize("high", [1, 2])
@pytest.mark.parametrize("wide", [1, 2])
@pytest.mark.parametrize("terms", [32, 160])
def test_tiles_multiply(high, wide, terms):
    rows, matrix = torch.randn(TILE * high, terms).bfloat16(), torch.randn(terms, TILE * wide)
    matrix = matrix.bfloat16()
    expected = torch.zeros(BLOCK, BLOCK)
    expected[: TILE * high, : TILE * wide] = rows.float() @ matrix.float()
    torch.testing.assert_close(product(rows, matrix, high, wide), expected, atol=1e-4, rtol=0)


def test_tiles_add_to_what_is_there():
    rows, matrix = torch.randn(BLOCK, 64).bfloat16(), torch.randn(64, BLOCK).bfloat16()
    before = torch.randn(BLOCK, BLOCK)
    expected = before + rows.float() @ matrix.float()
    torch.testing.assert_close(product(rows, matrix, before=before), expected, atol=1e-4, rtol=0)


def test_the_librarys_own_products_and_these_leave_each_other_alone():
    rows, matrix = torch.randn(BLOCK, 64).bfloat16(), torch.randn(64, BLOCK).bfloat16()
    large = torch.randn(96, 200).bfloat16(), torch.randn(200, 48).bfloat16()
    expected, of_large = rows.float() @ matrix.float(), large[0] @ large[1]
    for _ in range(5):
        torch.testing.assert_close(product(rows, matrix), expected, atol=1e-4, rtol=0)
        assert torch.equal(large[0] @ large[1], of_large)


def test_what_is_no_number_stays_none():
    rows, matrix = torch.zeros(BLOCK, 32).bfloat16(), torch.zeros(32, BLOCK).bfloat16()
    rows[3, 5] = np.nan
    assert product(rows, matrix).isnan().any(1).nonzero()[:, 0].tolist() == [3]
