from typing import NamedTuple

import numpy as np
import pytest
import torch

from armchair.core import threads as threads_module
from armchair.core.jit import jit
from armchair.core.threads import Threads, meet, share


@jit()
def count_in_turns(numbers, rounds, thread, num_threads, counter):
    """Each round every thread adds one to its neighbour's number."""
    for turn in range(rounds):
        numbers[(thread + turn) % num_threads] += 1
        meet(counter, num_threads * (turn + 1))


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
    assert threads_module._mapped("libgomp", maps) == ["/home/a b/torch/lib/libgomp.so.1"]
    assert threads_module._mapped("libomp", maps) == []


def test_without_its_functions_there_is_no_team(monkeypatch):
    found = threads_module._has_openmp.__wrapped__
    monkeypatch.setattr(threads_module, "_OPENMP", ("no_such_function",))
    assert not found()
    monkeypatch.setattr(threads_module, "_mapped", lambda *_: ["/gone/libgomp.so.1 (deleted)"])
    assert not found()
    monkeypatch.setattr(threads_module, "_mapped", lambda *_: [])
    assert not found()


@pytest.fixture(params=["OpenMP", "own threads"])
def _both_teams(request, monkeypatch):
    if request.param == "own threads":
        monkeypatch.setattr(threads_module, "_has_openmp", lambda: False)
    elif not threads_module._has_openmp():
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
