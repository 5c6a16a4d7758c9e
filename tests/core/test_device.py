import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from armchair.core.device import (
    autocast,
    has_fast_bf16,
    prepare_for_training,
    resolve_device,
    resolve_precision,
)
from armchair.core.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert resolve_device() == resolve_device("cpu") == CPU


@pytest.mark.usefixtures("one_gpu")
def test_auto_takes_the_gpu_where_there_is_one() -> None:
    assert resolve_device().type == "cuda"
    assert resolve_device("cuda:0") == torch.device("cuda:0")


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="which has 1 GPUs"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_where_none_is_is_refused() -> None:
    with pytest.raises(UsageError, match="use --device auto"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x", "mps"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda, or cuda:N"):
        resolve_device(name)


def test_precision() -> None:
    assert resolve_precision("fp32", CPU) == torch.float32
    assert resolve_precision("bf16", CPU) == torch.bfloat16
    auto = torch.bfloat16 if has_fast_bf16(CPU) else torch.float32
    assert resolve_precision("auto", CPU) == auto


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_runs_matrix_products_in_the_dtype(dtype: torch.dtype) -> None:
    with autocast(CPU, dtype):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.fixture
def _keep_denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("_keep_denormals")
def test_training_flushes_subnormal_numbers() -> None:
    prepare_for_training()
    assert float(torch.tensor([1e-40]) * 1.0) == 0.0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 alone has the bits")
def test_threads_that_run_already_flush_subnormal_numbers_too() -> None:
    program = """if True:
        import torch
        from armchair.core.device import prepare_for_training
        torch.set_num_threads(3)
        numbers = torch.full((1 << 20,), 1e-38)
        assert (numbers * 0.1 != 0).all()  # and torch's threads run now
        prepare_for_training()
        assert (numbers * 0.1 == 0).all()
    """
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="there are none"
)
def test_training_asks_for_huge_pages() -> None:
    code = """
import torch
from armchair.core.device import prepare_for_training
prepare_for_training()
numbers, is_within = torch.zeros(1 << 22), False
middle = numbers.data_ptr() + 2 * numbers.numel()
for line in open("/proc/self/smaps"):
    words = line.split()
    if "-" in words[0] and ":" not in words[0]:
        start, end = (int(part, 16) for part in words[0].split("-"))
        is_within = start <= middle < end
    elif words[0] == "VmFlags:" and is_within:
        print("hg" in words)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
