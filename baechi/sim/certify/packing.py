"""Whether things of given sizes can be divided among devices of given room."""

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import Ints

__all__ = ["cannot_pack"]

_LARGE = 40  # sizes that are packed one by one; the others may be cut at will
_MOST_NODES = 300_000


def cannot_pack(sizes: Ints, loose: int, rooms: Ints) -> bool:
    """Whether it is proved that sizes, each whole, and loose bytes do not fit into the rooms.

    The 40 largest are put wherever they fit, the largest first, by depth-first search; rooms with equally much left
    are tried once, and what is left in all must hold the rest.

    Example:
        >>> cannot_pack(np.array([6, 6, 6]), 0, np.array([10, 10]))
        True
        >>> cannot_pack(np.array([6, 4, 6, 4]), 0, np.array([10, 10]))
        False
    """
    largest_first = np.sort(sizes)[::-1].astype(np.int64)
    rest = int(largest_first[_LARGE:].sum()) + loose
    return bool(_search(largest_first[:_LARGE].copy(), rest, rooms.astype(np.int64), _MOST_NODES))


@kernel
def _search(sizes: Ints, rest: int, rooms: Ints, most_nodes: int) -> bool:
    """Whether no assignment of the sizes leaves room for the rest; false, too, after too many nodes."""
    count, devices = len(sizes), len(rooms)
    if sizes.sum() + rest > rooms.sum():
        return True
    free = rooms.copy()
    chosen = np.full(count + 1, -1, np.int64)
    k, nodes = 0, 0
    while k >= 0:
        nodes += 1
        if k == count or nodes > most_nodes:
            return False
        if chosen[k] >= 0:
            free[chosen[k]] += sizes[k]
        d = chosen[k] + 1
        while d < devices:
            twin = False
            for e in range(d):
                twin |= free[e] == free[d]
            if free[d] >= sizes[k] and not twin:
                break
            d += 1
        if d == devices:
            chosen[k] = -1
            k -= 1
            continue
        chosen[k] = d
        free[d] -= sizes[k]
        k += 1
        chosen[k] = -1
    return True
