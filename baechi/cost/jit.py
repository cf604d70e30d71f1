"""How the compiled loops are compiled: `kernel` for what Python calls, `leaf` for what kernels call."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

__all__ = ["kernel", "leaf", "maker"]

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on the first call and keep the machine code on disk.

    The code on disk follows changes of the kernel's own file only: after a change of a `leaf` in
    another file, delete ``__pycache__``.
    """
    compiled: Any = numba.njit(cache=True, nogil=True)(function)
    return compiled


def leaf(function: Callable[P, R]) -> Callable[P, R]:
    """Compile into the kernels that call it; it may not make arrays, which spares reference counts."""
    compiled: Any = numba.njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(function)
    return compiled


def maker(function: Callable[P, R]) -> Callable[P, R]:
    """Like `leaf`, for what makes arrays."""
    compiled: Any = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return compiled
