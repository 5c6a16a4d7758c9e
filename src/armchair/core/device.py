"""Which device to compute on, in which precision, and how memory is held on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

from armchair.core.errors import UsageError

Precision = Literal["auto", "bf16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

# glibc's mallopt parameters
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def resolve_device(name: str = "auto") -> torch.device:
    """The device that `name` asks for; "auto" takes a GPU where there is one.

    Raises:
        UsageError: The name is unknown, or asks for a GPU where none is.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        expected = "auto, cpu, cuda, or cuda:N"
        raise UsageError(
            "device", got=name, expected=expected, hint="auto takes a GPU if there is one"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(
                "device",
                got=name,
                expected=f"a device of this machine, which has {count} GPUs that torch can use",
                hint="use --device auto, or install the build of torch that fits your GPU",
            )
    return device


def usable_cores() -> int:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_fast_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: "auto" takes bfloat16 where the hardware has it."""
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """A context in which matrix products run in `dtype`; does nothing for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


COMPILED_DTYPES = (torch.float32, torch.bfloat16)
"""What compiled loops on a CPU read and write; between, they compute in float32."""


def product_dtype(device: torch.device, otherwise: torch.dtype = torch.float32) -> torch.dtype:
    """The dtype of matrix products here: that of autocast, or else another."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return otherwise


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone.

    After each operation that it shares, torch's other threads wait for the next one at full speed,
    on processors that threads of our own want.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_for_training() -> None:
    """Set up this process for training on a CPU; changes nothing that a model computes on a GPU.

    Subnormal numbers are flushed to zero: a sharp softmax is full of them, and each costs a hundred
    times an ordinary one. And glibc is told to keep large freed blocks: by default it maps each
    block over 32 MiB anew and unmaps it when it is freed, and the page faults of a step's
    activations then cost more than its arithmetic; they are to lie in huge pages, which are found
    sooner (docs/experiments.md has all three measured).
    """
    torch.set_flush_denormal(True)  # of this thread and those it starts from now on
    from armchair.core.threads import flush_subnormals  # imports numba

    flush_subnormals()  # and of those that it has started
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError, ImportError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, -1)
            _use_huge_pages(libc)


def _use_huge_pages(libc: ctypes.CDLL) -> None:
    """Have what the heap grows by from now on in huge pages, up to half of the memory.

    This takes addresses alone: pages come when they are first written to. Where addresses are
    counted, nothing is done.
    """
    import resource  # of Unix alone

    policy = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    if policy == "2" or resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    advice = mmap.MADV_HUGEPAGE
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(size)
    if block is None:
        return
    start = block + -block % mmap.PAGESIZE
    libc.madvise(start, block + size - start & -mmap.PAGESIZE, advice)
    libc.free(block)
