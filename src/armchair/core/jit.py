"""Functions compiled to machine code.

    @jit()
    def double(numbers, start, size):
        of_start = piece(numbers, start, size)          # a part of a flat array, at no cost
        ...

The machine code stays on disk from one process to the next. threads.py has several threads call
one such function, vectors.py what registers hold. Importing this imports numba, half a second: only
what computes on a CPU should, and when it does.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numba.extending
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config, event
from numba.core.registry import CPUDispatcher
from numba.np.arrayobj import populate_array

intrinsic: Any = numba.extending.intrinsic  # called without the first argument of what it is of

sources_of: dict[Any, set[Path]] = {}
"""The files that the machine code of each compiled function is of."""
_I64 = ir.IntType(64)


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
        return compiled(function, _sources(function), options)

    return decorate


def compiled(function: Callable[..., Any], files: set[Path], options: dict[str, Any]) -> Any:
    """A dispatcher, whose machine code is kept until one of the files changes.

    Args:
        function: To be compiled.
        files: Of the function, and of all that it calls.
        options: Of `numba.njit`.
    """
    try:
        made = numba.njit(function, cache=True, **options)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        made = numba.njit(function, **options)
        sources_of[made] = set()
        return made
    sources_of[made] = files
    stamps = sorted((str(file), file.stat().st_mtime_ns) for file in files)
    cache: Any = made._cache  # type: ignore[attr-defined]
    cache._cache_file._source_stamp = (stamps, numba.__version__)
    return made


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
            files |= sources_of.get(used, set())
        elif hasattr(used, "_defn"):  # an intrinsic
            files |= _sources_of_intrinsic(inspect.unwrap(used._defn))
    return files


def _sources_of_intrinsic(definition: Any) -> set[Path]:
    """The file of an intrinsic, and those of what its module takes from others of this package."""
    used = {value for value in definition.__globals__.values() if inspect.isfunction(value)}
    own = [one for one in used if one.__module__.startswith("armchair.")]
    return {Path(inspect.getfile(inspect.unwrap(one))) for one in (definition, *own)}


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
