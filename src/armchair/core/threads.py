"""Threads that share the work of one compiled function.

    @jit()
    def double(numbers, thread, num_threads, counter):
        share = numbers[thread::num_threads]
        ...
        meet(counter, num_threads)          # and all go on once all are here
        ...

    Threads(4).run(double, numbers)         # double(numbers, thread, 4, counter) in each of them
    share(double, tensor)                   # the same with tensors, in as many as torch has

As jit.py, this imports numba.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils

from armchair.core.jit import compiled, intrinsic, jit, sources_of

_SPINS = 2000  # before a waiting thread lets others have its processor
_NOBODY_WAITS = 1 << 62  # more than threads ever count
_OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
_NO_COUNTER = np.zeros(1, np.int64)  # of functions whose threads do not meet
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Threads:
    """Threads that run one function together, the one that asks for it among them.

    They end with this object.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._counter = np.zeros(1, np.int64)
        self._others = ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="armchair")

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call it with the arguments, a thread's number, how many there are, and a counter.

        Args:
            function: Compiled by `jit`.
            *arguments: Its first arguments.
        """
        self._counter[0] = 0
        shared, others = (self.count, self._counter), []
        try:
            for thread in range(1, self.count):
                others.append(self._others.submit(function, *arguments, thread, *shared))
            function(*arguments, 0, *shared)
        except BaseException:
            self._counter[0] = _NOBODY_WAITS
            wait(others)
            raise
        for other in others:
            other.result()


@functools.cache
def _torchs_threads(count: int) -> Threads:
    return Threads(count)


def share(function: Callable[..., None], *arguments: Any) -> None:
    """Call a compiled function in as many threads as torch has.

    These are torch's own, where it has GNU's OpenMP: they wake sooner than others, and do not
    wait at full speed on a processor that others want.

    Args:
        function: Compiled by `jit`; its threads do not `meet`.
        *arguments: Its first arguments; contiguous tensors, which it is given as flat arrays, and
            others as they are. Of bfloat16 it is given the bits, as uint16.
    """
    flat = tuple(as_array(one) if isinstance(one, torch.Tensor) else one for one in arguments)
    count = torch.get_num_threads()
    if count > 1 and _has_openmp():
        _in_team(function)(flat, _NO_COUNTER, count)
    else:
        _torchs_threads(count).run(function, *flat)


def room(size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Memory for so many numbers of each thread of `share`, one thread's after the other's."""
    return torch.empty(torch.get_num_threads() * size, dtype=dtype, device="cpu")


@functools.cache
def _has_openmp() -> bool:
    """Make the functions of torch's OpenMP known to compiled code, if it is GNU's."""
    try:
        files = _mapped("libgomp", Path("/proc/self/maps").read_text())
        own = [file for file in files if Path(file).parent.parent == Path(torch.__file__).parent]
        runtime = ctypes.CDLL((own or files)[0])
        functions = [getattr(runtime, name) for name in _OPENMP]
    except (OSError, IndexError, AttributeError):
        return False
    for name, function in zip(_OPENMP, functions, strict=True):
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return True


def _mapped(name: str, maps: str) -> list[str]:
    """The files of a process's memory whose names begin so; their folders may hold spaces."""
    lines = (line.split(maxsplit=5) for line in maps.splitlines())
    files = {words[5] for words in lines if len(words) == 6}
    return sorted(file for file in files if Path(file).name.startswith(name))


@functools.cache
def _in_team(function: Any) -> Any:
    """A compiled function that calls another, of `jit`, in each thread of a team."""
    body: Any = function.py_func
    template: Any = inspect.unwrap(_call_in_team)
    code = template.__code__.replace(
        co_name=body.__name__,
        co_qualname=f"{body.__qualname__}_in_team",
        co_filename=body.__code__.co_filename,
        co_firstlineno=body.__code__.co_firstlineno,
    )
    named = {"_function": function, "_fork": _fork, "__name__": body.__module__}
    call = FunctionType(code, named)
    call.__module__ = body.__module__
    files = sources_of[function] | {Path(__file__)}
    return compiled(call, files, {"error_model": "numpy", "nogil": True})


def _call_in_team(arguments: Any, counter: Any, num_threads: Any) -> None:
    _fork(_function, arguments, counter, num_threads)  # type: ignore[name-defined]


@intrinsic
def _fork(
    typing_context: Any, function: Any, arguments: Any, counter: Any, num_threads: Any
) -> Any:
    """Call function(*arguments, thread, number of threads, counter) in OpenMP's threads."""
    kinds = (*arguments.types, types.int64, types.int64, counter)
    called = function.get_call_type(typing_context, kinds, {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        result = function.dispatcher.get_compile_result(called)
        context.add_linking_libs([result.library])
        inner = context.declare_function(builder.module, result.fndesc)
        given = cgutils.pack_struct(builder, [values[1], values[2]])
        place = cgutils.alloca_once_value(builder, given)

        pointer, number = ir.IntType(8).as_pointer(), ir.FunctionType(_I32, [])
        of_thread = ir.Function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer]),
            builder.module.get_unique_name("armchair_of_thread"),
        )
        of_thread.linkage = "internal"
        inside = ir.IRBuilder(of_thread.append_basic_block())
        taken = inside.load(inside.bitcast(of_thread.args[0], place.type))
        thread, count = (
            inside.sext(
                inside.call(cgutils.get_or_insert_function(builder.module, number, name), []), _I64
            )
            for name in ("omp_get_thread_num", "omp_get_num_threads")
        )
        unpacked = cgutils.unpack_tuple(inside, inside.extract_value(taken, 0))
        context.call_conv.call_function(
            inside,
            inner,
            result.fndesc.restype,
            result.fndesc.argtypes,
            [*unpacked, thread, count, inside.extract_value(taken, 1)],
        )
        inside.ret_void()

        kind = ir.FunctionType(ir.VoidType(), [of_thread.type, pointer, _I32, _I32])
        fork = cgutils.get_or_insert_function(builder.module, kind, "GOMP_parallel")
        count = builder.trunc(values[3], _I32)
        builder.call(fork, [of_thread, builder.bitcast(place, pointer), count, _I32(0)])
        return context.get_dummy_value()

    return types.void(function, arguments, counter, num_threads), generate


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """What a compiled function is given of a contiguous tensor: its numbers, or bits, flat."""
    flat = tensor.detach().view(-1)
    return (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()


@intrinsic
def _count_one(_: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.atomic_rmw("add", data, _I64(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(counter), generate


@intrinsic
def _counted(_: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "acquire", 8)

    return types.int64(counter), generate


@intrinsic
def _pause(_: Any) -> Any:
    """Leave a moment to another thread of the same core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        processor = builder.module.triple.split("-")[0]
        name, hints = {
            "x86_64": ("llvm.x86.sse2.pause", []),
            "aarch64": ("llvm.aarch64.hint", [_I32(1)]),
            "arm64": ("llvm.aarch64.hint", [_I32(1)]),
        }.get(processor, (None, []))
        if name is not None:
            kind = ir.FunctionType(ir.VoidType(), [hint.type for hint in hints])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), hints)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _let_others(_: Any) -> Any:
    """Let the system run another thread on this processor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@jit()
def meet(counter, goal):  # type: ignore[no-untyped-def]
    """Wait until the threads have come here `goal` times, all added up.

    Args:
        counter: As `Threads` gives it.
        goal: The number of threads, times how often each has come.
    """
    _count_one(counter)
    spins = 0
    while _counted(counter) < goal:
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            _let_others()


_FLUSH = 0x8040  # in an x86 thread's control word: subnormal results and operands count as 0


@intrinsic
def _flush_in_this_thread(_: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = cgutils.alloca_once(builder, _I32)
        place = builder.bitcast(word, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type])
        read, write = (
            cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
            for name in ("stmxcsr", "ldmxcsr")
        )
        builder.call(read, [place])
        builder.store(builder.or_(builder.load(word), _I32(_FLUSH)), word)
        builder.call(write, [place])
        return context.get_dummy_value()

    return types.void(), generate


@jit()
def _flush(thread, num_threads, _counter):  # type: ignore[no-untyped-def]
    _flush_in_this_thread()


def flush_subnormals() -> None:
    """Have torch's threads, those that run already too, take subnormal numbers for 0, on x86.

    `torch.set_flush_denormal` does so for the calling thread, and those that it starts later.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        share(_flush)
