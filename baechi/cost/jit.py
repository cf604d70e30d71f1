"""How the compiled loops are compiled: `kernel` for what Python calls, `leaf` for what kernels call."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np

__all__ = ["NONE", "kernel", "leaf", "maker"]

NONE: Any = np.int64(-1)
"""No index; a plain -1 would make the compiler compile what it is passed to for that constant too."""

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on the first call and keep the machine code on disk.

    The code on disk follows changes of the kernel's own file only: after a change of a `leaf` in
    another file, delete ``__pycache__``.
    """
    return _compile(function, cache=True, nogil=True)


def leaf(function: Callable[P, R]) -> Callable[P, R]:
    """Compile into the kernels that call it; it may not make arrays, which spares reference counts."""
    return _compile(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


def maker(function: Callable[P, R]) -> Callable[P, R]:
    """Like `leaf`, for what makes arrays."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def _compile(function: Callable[P, R], **options: bool) -> Callable[P, R]:
    njit: Any = numba.njit
    compiled: Callable[P, R] = njit(**options)(function)
    return compiled
