"""What groups hold, and amounts as shares of their sum: what placers cut by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import Arrays

__all__ = ["held_bytes", "shares"]

Floats = NDArray[np.float64]


def held_bytes(a: Arrays) -> Floats:
    """(groups,) bytes that persist with the ops of each colocation group, or that they make."""
    held = a.persistent + np.bincount(a.t_op, a.t_size, len(a.rank))
    return np.asarray(np.bincount(a.group, held, len(a.group_ptr) - 1), np.float64)


def shares(amounts: NDArray[Any]) -> Floats:
    """Each amount as a fraction of their sum; equal shares of nothing.

    Example:
        >>> shares(np.array([1, 3])).tolist(), shares(np.zeros(2)).tolist()
        ([0.25, 0.75], [0.5, 0.5])
    """
    total = amounts.sum()
    return np.asarray(amounts / total, np.float64) if total > 0 else np.full(len(amounts), 1 / max(1, len(amounts)))
