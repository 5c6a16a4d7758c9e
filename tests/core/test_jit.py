import logging
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

from armchair.core.jit import _Announcer, borrowed, jit, piece, sources_of
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
def fill(numbers, start, size, value):
    part = piece(numbers, start, size)
    for i in range(len(part)):
        part[i] = value


def test_compiled_functions_compute():
    assert quarter(3.0) == 0.75
    assert np.isinf(jit()(lambda x: 1 / x)(0.0))


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
    names = {file.name for file in sources_of[cross_entropy]}
    assert {"compiled_cross_entropy.py", "compiled_functions.py", "vectors.py"} <= names
    assert "vectors.py" in {file.name for file in sources_of[panels.multiply]}
