"""Whether things that wait for each other can all be done."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["first_stuck"]

Ints = NDArray[np.int64]
_compile: Any = numba.njit(cache=True, nogil=True)


def first_stuck(before: Ints, after: Ints, count: int) -> int:
    """The first of `count` things that is never done, or -1; O(count + pairs).

    Args:
        before, after: (pairs,) each thing of `after` waits for the one of `before`, which is never done
            when it is `count`.

    Example:
        >>> first_stuck(np.array([0, 1]), np.array([1, 2]), 3), first_stuck(np.array([0, 2, 1]), np.array([1, 1, 2]), 3)
        (-1, 1)
    """
    return int(_first_stuck(before, after, count))


@_compile  # type: ignore[untyped-decorator]
def _first_stuck(before: Ints, after: Ints, count: int) -> int:
    left, ptr = np.zeros(count, np.int64), np.zeros(count + 2, np.int64)
    for k in range(len(before)):
        left[after[k]] += 1
        ptr[before[k] + 1] += 1
    ptr = np.cumsum(ptr)
    at, follower = ptr.copy(), np.empty(len(after), np.int64)
    for k in range(len(before)):
        follower[at[before[k]]] = after[k]
        at[before[k]] += 1
    free, top = np.empty(count, np.int64), 0
    for i in range(count):
        if left[i] == 0:
            free[top] = i
            top += 1
    while top > 0:
        top -= 1
        i = free[top]
        for k in range(ptr[i], ptr[i + 1]):
            left[follower[k]] -= 1
            if left[follower[k]] == 0:
                free[top] = follower[k]
                top += 1
    for i in range(count):
        if left[i] > 0:
            return i
    return -1
