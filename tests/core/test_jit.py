import logging
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
import torch
from llvmlite.binding import get_host_cpu_features

from armchair.core import jit as jit_module
from armchair.core.jit import Threads, _Announcer, borrowed, jit, meet, piece, share
from armchair.nn import panels
from armchair.nn.compiled_cross_entropy import cross_entropy


@jit()
def half(x):
    return x / 2


@jit()
def quarter(x):
    return half(half(x))


def early(x):
    return not_yet(x) + 1


@jit()
def count_in_turns(numbers, rounds, thread, num_threads, counter):
    """Each round every thread adds one to its neighbour's number."""
    for turn in range(rounds):
        numbers[(thread + turn) % num_threads] += 1
        meet(counter, num_threads * (turn + 1))


@jit()
def fill(numbers, start, size, value):
    part = piece(numbers, start, size)
    for i in range(len(part)):
        part[i] = value


def test_compiled_functions_compute():
    assert quarter(3.0) == 0.75
    assert np.isinf(jit()(lambda x: 1 / x)(0.0))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_meet_before_they_go_on(count):
    numbers = np.zeros(count, np.int64)
    threads = Threads(count)
    for _ in range(3):
        threads.run(count_in_turns, numbers, 200)
    assert numbers.tolist() == [600] * count


def test_a_thread_that_is_stopped_leaves_none_waiting():
    """Ctrl-C may come between starting the others and taking part."""

    def stopped(numbers, rounds, thread, num_threads, counter):
        if thread == 0:
            raise KeyboardInterrupt
        count_in_turns(numbers, rounds, thread, num_threads, counter)

    threads, numbers = Threads(3), np.zeros(3, np.int64)
    with pytest.raises(KeyboardInterrupt):
        threads.run(stopped, numbers, 200)
    numbers[:] = 0
    threads.run(count_in_turns, numbers, 10)
    assert numbers.tolist() == [10] * 3


def test_a_piece_is_a_part_of_its_array():
    numbers = np.zeros(8)
    fill(numbers, 2, 3, 5.0)
    assert numbers.tolist() == [0, 0, 5, 5, 5, 0, 0, 0]


class Pair(NamedTuple):
    numbers: Any
    factor: Any


@jit()
def double_borrowed(numbers, pair):
    numbers, pair = borrowed((numbers, pair))
    for i in range(len(numbers)):
        numbers[i] = pair.numbers[i, 0] * pair.factor


def test_what_is_borrowed_is_the_same_and_counts_no_holders():
    numbers, others = np.zeros(3), np.arange(6.0).reshape(3, 2)
    holders = sys.getrefcount(numbers), sys.getrefcount(others)
    double_borrowed(numbers, Pair(others, 2))
    assert numbers.tolist() == [0, 4, 8]
    assert (sys.getrefcount(numbers), sys.getrefcount(others)) == holders


def test_what_is_called_must_be_defined_before():
    with pytest.raises(NameError, match="uses not_yet, which must be defined before"):
        jit()(early)


SOURCE = "from armchair.core.jit import jit\nfrom inner import inner\n\n\n@jit()\ndef outer(x):\n    return inner(x)\n"  # noqa: E501
INNER = "from armchair.core.jit import jit\n\n\n@jit()\ndef inner(x):\n    return x + {}\n"


def call(folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    program = "from outer import outer; print(outer(1), outer.stats.cache_hits)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.split()


def test_machine_code_is_kept_until_a_function_or_one_that_it_calls_changes(tmp_path):
    (tmp_path / "outer.py").write_text(SOURCE)
    (tmp_path / "inner.py").write_text(INNER.format(1))
    assert call(tmp_path) == ["2", "Counter()"]
    assert call(tmp_path)[0] == "2"
    assert "1})" in "".join(call(tmp_path)[1:])
    (tmp_path / "inner.py").write_text(INNER.format(10))
    assert call(tmp_path) == ["11", "Counter()"]


def test_compiling_is_announced_once(caplog):
    with caplog.at_level(logging.INFO, logger="armchair"):
        announcer = _Announcer()
        announcer.on_start(None)
        announcer.on_end(None)
        announcer.on_start(None)
    assert caplog.messages == ["compiling for this processor: some seconds, once, then it is kept"]


@jit()
def _fill(numbers, value, thread, num_threads, _counter):
    for i in range(thread, len(numbers), num_threads):
        numbers[i] = value


def test_a_library_is_found_in_any_folder():
    maps = """\
7f10-7f20 r--p 00000000 08:01 11  /home/a b/torch/lib/libgomp.so.1
7f20-7f30 r-xp 00010000 08:01 11  /home/a b/torch/lib/libgomp.so.1
7f30-7f40 r--p 00000000 08:01 12  /usr/lib/libgomp-plugins/libc.so.6
7f40-7f50 rw-p 00000000 00:00 0
"""
    assert jit_module._mapped("libgomp", maps) == ["/home/a b/torch/lib/libgomp.so.1"]
    assert jit_module._mapped("libomp", maps) == []


def test_without_its_functions_there_is_no_team(monkeypatch):
    found = jit_module._has_openmp.__wrapped__
    monkeypatch.setattr(jit_module, "_OPENMP", ("no_such_function",))
    assert not found()
    monkeypatch.setattr(jit_module, "_mapped", lambda *_: ["/gone/libgomp.so.1 (deleted)"])
    assert not found()
    monkeypatch.setattr(jit_module, "_mapped", lambda *_: [])
    assert not found()


@pytest.fixture(params=["OpenMP", "own threads"])
def _both_teams(request, monkeypatch):
    if request.param == "own threads":
        monkeypatch.setattr(jit_module, "_has_openmp", lambda: False)
    elif not jit_module._has_openmp():
        pytest.skip("torch has another OpenMP here")


@pytest.mark.usefixtures("_both_teams")
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_tensors_are_shared_out_flat(num_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        tensor = torch.zeros(3, 5)
        share(_fill, tensor, np.float32(2))
        assert tensor.tolist() == [[2.0] * 5] * 3
        with pytest.raises(RuntimeError):  # what a copy was written to would be lost
            share(_fill, tensor.T, np.float32(1))
    finally:
        torch.set_num_threads(before)


class Sizes(NamedTuple):
    first: int
    second: float


@jit()
def _number_them(places, sizes, bits, thread, num_threads, _counter):
    places[2 * thread] = thread + sizes.first
    places[2 * thread + 1] = num_threads * sizes.second
    bits[thread] += 1


@pytest.mark.usefixtures("_both_teams")
def test_each_thread_is_told_which_it_is_and_bfloat16_comes_as_bits():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        places, bits = torch.zeros(6), torch.tensor([1.0, -2.0, 0.5], dtype=torch.bfloat16)
        share(_number_them, places, Sizes(10, 0.5), bits)
    finally:
        torch.set_num_threads(before)
    assert places.tolist() == [10, 1.5, 11, 1.5, 12, 1.5]
    assert bits.view(torch.int16).tolist() == [0x3F81, 0xC001 - 2**16, 0x3F01]


@pytest.mark.skipif(
    not get_host_cpu_features().get("avx512f") or "NUMBA_CPU_FEATURES" in os.environ,
    reason="no AVX512 here, or numba is told for what to compile",
)
def test_loops_become_the_widest_vectors_that_there_are():
    @numba.njit  # not kept, so that it can be looked into
    def double(numbers):
        for i in range(len(numbers)):
            numbers[i] *= np.float32(2)

    double(np.ones(100, np.float32))
    assert "zmm" in "".join(double.inspect_asm().values())


def test_machine_code_is_of_the_files_that_make_what_intrinsics_give():
    names = {file.name for file in jit_module._sources_of[cross_entropy]}
    assert {"compiled_cross_entropy.py", "compiled_functions.py", "vectors.py"} <= names
    assert "vectors.py" in {file.name for file in jit_module._sources_of[panels.multiply]}
