"""How the compiled loops are compiled: `kernel` for what Python calls, `leaf` for what kernels call."""

import hashlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

__all__ = ["NONE", "kernel", "leaf", "maker"]

NONE: Any = np.int64(-1)
"""No index; a plain -1 would make the compiler compile what it is passed to for that constant too."""

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on the first call and keep the machine code on disk until anything compiled into it changes."""
    cache: Any = _Cache
    dispatcher: Any = _compile(function, nogil=True)
    dispatcher._cache = cache(function)
    compiled: Callable[P, R] = dispatcher
    return compiled


def leaf(function: Callable[P, R]) -> Callable[P, R]:
    """Compile into the kernels that call it; it may not make arrays, which spares reference counts."""
    return _compile(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def maker(function: Callable[P, R]) -> Callable[P, R]:
    """Like `leaf`, for what makes arrays."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class _Cache(FunctionCache):
    """Numba's cache of machine code, which alone follows the kernel's own file but not the leaves' files."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        digest = hashlib.sha256()
        for part in _compiled_in(self._py_func, set()):
            digest.update(f"{len(part)}:{part}".encode())
        layout = tuple(_fields(argument) for argument in getattr(sig, "args", sig))
        own: Any = FunctionCache._index_key
        return (*own(self, sig, codegen), digest.hexdigest(), layout)


def _compiled_in(function: Callable[..., Any], seen: set[Callable[..., Any]]) -> Iterator[str]:
    """Say what the machine code of a function is made from: its code, the constants and functions that it names."""
    seen.add(function)
    yield from _instructions(function.__code__)
    names = inspect.getclosurevars(function)
    for name, value in sorted({**names.globals, **names.nonlocals}.items()):
        if isinstance(value, Dispatcher):
            if value.py_func not in seen:
                yield from _compiled_in(value.py_func, seen)
        elif isinstance(value, np.ndarray):
            yield f"{name} {value.dtype} {value.shape} {value.tobytes().hex()}"
        elif isinstance(value, (bool, int, float, str, tuple, np.generic)):
            yield f"{name} {value!r}"
        elif isinstance(value, type):
            yield f"{name} {getattr(value, '_fields', ())}"


def _instructions(code: CodeType) -> Iterator[str]:
    yield from (code.co_code.hex(), repr(code.co_names), repr(code.co_varnames))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(constant)


def _fields(kind: Any) -> tuple[Any, ...]:
    """Name the fields of a named tuple and of those in it: numba's own key has their types alone."""
    return (getattr(kind, "fields", ()), *(_fields(part) for part in getattr(kind, "types", ())))


def _compile(function: Callable[P, R], **options: bool) -> Callable[P, R]:
    njit: Any = numba.njit
    compiled: Callable[P, R] = njit(**options)(function)
    return compiled
