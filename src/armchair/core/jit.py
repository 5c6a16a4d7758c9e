"""Functions compiled to machine code, and threads that share the work of one.

    @jit()
    def double(numbers, thread, num_threads, counter):
        share = numbers[thread::num_threads]
        ...
        meet(counter, num_threads)          # and all go on once all are here
        ...

    Threads(4).run(double, numbers)         # double(numbers, thread, 4, counter) in each of them
    share(double, tensor)                   # the same with tensors, in as many as torch has

The machine code stays on disk from one process to the next. Importing this imports numba, half a
second: only what computes on a CPU should, and when it does.
"""

from __future__ import annotations

import builtins
import ctypes
import dis
import functools
import inspect
import logging
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numba.extending
import numpy as np
import torch
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config, event
from numba.core.registry import CPUDispatcher
from numba.np.arrayobj import populate_array

intrinsic: Any = numba.extending.intrinsic  # called without the first argument of what it is of

_sources_of: dict[Any, set[Path]] = {}  # of each compiled function
_SPINS = 2000  # before a waiting thread lets others have its processor
_NOBODY_WAITS = 1 << 62  # more than threads ever count
_OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
_NO_COUNTER = np.zeros(1, np.int64)  # of functions whose threads do not meet
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Announcer(event.Listener):
    """Says once in a process that something is compiled, to the log."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            _log.info("compiling for this processor: some seconds, once, then it is kept")

    def on_end(self, event: Any) -> None:
        pass


_log = logging.getLogger(__name__)


@functools.cache
def _announce_compiling() -> None:
    event.register("numba:compile", _Announcer())


@functools.cache
def _use_whole_registers() -> None:
    """Have loops compiled to the widest vectors that there are.

    LLVM prefers half of AVX512's, which spares processors that slow down for whole ones; products
    (nn/panels.py) take whole ones anyway. Numba is asked by its own settings, for this process.
    """
    features = llvm.get_host_cpu_features()
    settings: Any = config
    if features.get("avx512f") and not (settings.CPU_NAME or settings.CPU_FEATURES):
        settings.CPU_NAME = llvm.get_host_cpu_name()
        settings.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call, or read what an earlier process compiled.

    A function is compiled anew after a change in its file, or in that of a compiled function that
    it calls. Where nothing can be written, neither beside the source nor in the user's cache
    folder, each process compiles for itself. Division by zero gives infinity.

    Args:
        **options: Of `numba.njit`.
    """
    options = {"error_model": "numpy", "nogil": True, **options}

    def decorate(function: Callable[..., Any]) -> Any:
        _use_whole_registers()
        _announce_compiling()
        function = inspect.unwrap(function)  # from what checks types in the tests
        return _compiled(function, _sources(function), options)

    return decorate


def _compiled(function: Callable[..., Any], files: set[Path], options: dict[str, Any]) -> Any:
    """A dispatcher, whose machine code is kept until one of the files changes."""
    try:
        compiled = numba.njit(function, cache=True, **options)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        compiled = numba.njit(function, **options)
        _sources_of[compiled] = set()
        return compiled
    _sources_of[compiled] = files
    stamps = sorted((str(file), file.stat().st_mtime_ns) for file in files)
    cache: Any = compiled._cache  # type: ignore[attr-defined]
    cache._cache_file._source_stamp = (stamps, numba.__version__)
    return compiled


def _sources(function: Callable[..., Any]) -> set[Path]:
    """The files of a function and of all compiled ones that it calls."""
    files = {Path(inspect.getfile(function))}
    for instruction in dis.get_instructions(function):
        name = instruction.argval
        if instruction.opname != "LOAD_GLOBAL" or hasattr(builtins, name):
            continue
        if name not in function.__globals__:
            raise NameError(f"{function.__name__} uses {name}, which must be defined before it")
        used = function.__globals__[name]
        if isinstance(used, CPUDispatcher):
            files |= _sources_of.get(used, set())
        elif hasattr(used, "_defn"):  # an intrinsic
            files |= _sources_of_intrinsic(inspect.unwrap(used._defn))
    return files


def _sources_of_intrinsic(definition: Any) -> set[Path]:
    """The file of an intrinsic, and those of what its module takes from others of this package."""
    used = {value for value in definition.__globals__.values() if inspect.isfunction(value)}
    own = [one for one in used if one.__module__.startswith("armchair.")]
    return {Path(inspect.getfile(inspect.unwrap(one))) for one in (definition, *own)}


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
    files = _sources_of[function] | {Path(__file__)}
    return _compiled(call, files, {"error_model": "numpy", "nogil": True})


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
        compiled = function.dispatcher.get_compile_result(called)
        context.add_linking_libs([compiled.library])
        inner = context.declare_function(builder.module, compiled.fndesc)
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
            compiled.fndesc.restype,
            compiled.fndesc.argtypes,
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


def shared_function(module: Any, name: str, kind: Any) -> tuple[Any, Any]:
    """A function that intrinsics call, of which each module of machine code has one.

    Args:
        module: Of the intrinsic's builder.
        name: In which all that tells it from others is.
        kind: Its type.

    Returns:
        The function, and a builder for its body; None in its place where it has one.
    """
    function = cgutils.get_or_insert_function(module, kind, name)
    if not function.is_declaration:
        return function, None
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block())


def _part_of(kind: Any) -> Any:
    """A function that gives a part of a flat array, as numbers of a kind, or as the array's."""

    @intrinsic
    def part(_: Any, array: Any, start: Any, size: Any) -> Any:
        view = types.Array(kind or array.dtype, 1, "C")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            start, size = (
                context.cast(builder, given, kind, types.intp)
                for given, kind in zip(arguments[1:], signature.args[1:], strict=True)
            )
            made = context.make_array(view)(context, builder)
            itemsize = _I64(context.get_abi_sizeof(context.get_data_type(view.dtype)))
            populate_array(
                made,
                data=builder.bitcast(builder.gep(data, [start]), made.data.type),
                shape=[size],
                strides=[itemsize],
                itemsize=itemsize,
                meminfo=None,
            )
            return made._getvalue()

        return view(array, start, size), generate

    return part


def _without_owners(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        made = context.make_array(kind)(context, builder, value)
        made.meminfo, made.parent = (
            cgutils.get_null_value(part.type) for part in (made.meminfo, made.parent)
        )
        return made._getvalue()
    if hasattr(kind, "types"):  # a tuple's
        for number, part in enumerate(kind.types):
            given = builder.extract_value(value, number)
            given = _without_owners(context, builder, part, given)
            value = builder.insert_value(value, given, number)
    return value


@intrinsic
def borrowed(_: Any, value: Any) -> Any:
    """An array, or a tuple with arrays, whose holders are not counted from here on.

    A compiled function that gives an array to another one counts who holds it, and threads wait for
    each other to count. For arrays that somebody else holds for as long as they are used.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _without_owners(context, builder, value, arguments[0])

    return value(value), generate


# A part of a flat array, as `array[start : start + size]` is, at no cost: a slice counts who holds
# the array, and threads wait for each other to count.
piece = _part_of(None)
# The same as numbers of 16 bits; the start counts the array's numbers, the size these.
halves_of = _part_of(types.uint16)


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
