import pytest
import torch
from torch import nn

from armchair.core.errors import ConfigError
from armchair.training.muon import Muon, orthogonalize


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(8, 8), (4, 32), (32, 4), (1, 5)])
def test_singular_values_become_about_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = normal(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix, dtype).float()
    values = left.T @ found @ right.T
    assert values.diagonal().min() > 0.6
    assert values.diagonal().max() < 1.3
    assert (values - values.diagonal().diag()).abs().max() < 0.1  # the same singular vectors


@pytest.mark.parametrize("shape", [(16, 144), (96, 12), (8, 24), (1, 9)])
@pytest.mark.parametrize("decades", [0, 4])
def test_a_wide_matrix_is_found_by_its_gram_matrix_as_directly(
    shape: tuple[int, int], decades: int
) -> None:
    left, _, right = torch.linalg.svd(normal(*shape).double(), full_matrices=False)
    matrix = (left * torch.logspace(0, -decades, min(shape), dtype=torch.float64)) @ right
    found = orthogonalize(matrix.float(), torch.float32).double()
    expected = orthogonalize_directly(matrix)
    torch.testing.assert_close(orthogonalize(matrix, torch.float64), expected)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def orthogonalize_directly(matrix: torch.Tensor) -> torch.Tensor:
    """Jordan's iteration, as he writes it."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize_directly(matrix.T).T
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(3, 4), (3, 40)])
def test_nothing_stays_nothing(shape: tuple[int, int]) -> None:
    nothing = torch.zeros(shape)
    assert torch.equal(orthogonalize(nothing, torch.float32), nothing)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_a_matrix_moves_as_torchs_own_muon_moves_it(shape: tuple[int, int]) -> None:
    ours, theirs = (nn.Parameter(normal(*shape)) for _ in range(2))
    optimizers = [
        Muon([ours], lr=0.1, weight_decay=0.3, precision="bf16"),
        torch.optim.Muon(
            [theirs], lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw", momentum=0.95
        ),
    ]
    for seed in range(1, 5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = normal(*shape, seed=seed)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert not torch.allclose(ours, normal(*shape), atol=0.1)


def test_steps_in_float32_are_steps_in_bfloat16_but_for_rounding() -> None:
    fine, coarse = (nn.Parameter(normal(16, 12)) for _ in range(2))
    for parameter, precision in ((fine, "fp32"), (coarse, "bf16")):
        parameter.grad = normal(16, 12, seed=1)
        Muon([parameter], lr=0.1, precision=precision).step()
    torch.testing.assert_close(fine, coarse, rtol=0, atol=2e-3)  # of steps of 0.02
    assert not torch.equal(fine, coarse)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_moves_as_the_matrix_of_its_output_channels(
    memory_format: torch.memory_format,
) -> None:
    kernel = nn.Parameter(normal(8, 4, 3, 3).contiguous(memory_format=memory_format))
    matrix = nn.Parameter(normal(8, 4, 3, 3).flatten(1))
    for parameter in (kernel, matrix):
        optimizer = Muon([parameter], lr=0.1)
        for seed in (1, 2):
            parameter.grad = normal(8, 4, 3, 3, seed=seed).reshape(parameter.shape)
            optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=1e-6)
    assert kernel.is_contiguous(memory_format=memory_format)


def test_parameters_without_a_gradient_stay() -> None:
    still, moved = nn.Parameter(normal(2, 2)), nn.Parameter(normal(2, 2))
    optimizer = Muon([still, moved], lr=0.1, weight_decay=0.5)
    moved.grad = normal(2, 2, seed=1)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(still, normal(2, 2))
    assert not torch.equal(moved, normal(2, 2))


def test_a_vector_has_no_singular_values() -> None:
    with pytest.raises(ConfigError, match="two axes"):
        Muon([nn.Parameter(normal(3))], lr=0.1)
