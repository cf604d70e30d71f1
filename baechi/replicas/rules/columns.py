"""The values of each column in order: a sorting network whose comparators work on whole rows of a block.

The network is Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M), without
the comparators that do not matter for what is wanted of it.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["added", "in_order", "nearest"]

_FEW = 1 << 13
_MANY_ROWS = 128
"""Where torch's own sort is the faster one: fewer numbers, or more rows."""


def in_order(block: Tensor, exact: Collection[int], summed: Collection[int] = ()) -> list[Tensor]:
    """The rows of a block, each column in ascending order, as far as wanted.

    Args:
        block: (m, w), overwritten, without NaN.
        exact: ranks whose values are wanted.
        summed: ranks of which only the sum is wanted: among them the order is any.

    Returns:
        m rows (w,); those of other ranks are without meaning.

    Example:
        >>> [row.tolist() for row in in_order(torch.tensor([[3.0, 1.0], [1.0, 2.0], [2.0, 0.0]]), exact=(0, 1, 2))]
        [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]
    """
    if block.numel() <= _FEW or len(block) > _MANY_ROWS:
        return list(block.sort(0).values.unbind(0))
    rows, spare = list(block.unbind(0)), torch.empty_like(block[0])
    for i, j, low, high in _network(len(block), frozenset(exact), frozenset(summed)):
        if low and high:
            torch.minimum(rows[i], rows[j], out=spare)
            torch.maximum(rows[i], rows[j], out=rows[j])
            rows[i], spare = spare, rows[i]
        elif low:
            torch.minimum(rows[i], rows[j], out=rows[i])
        else:
            torch.maximum(rows[i], rows[j], out=rows[j])
    return rows


def nearest(rows: list[Tensor], centre: Tensor, b: int) -> Tensor:
    """Of each column, the mean of the m - b values nearest to a centre.

    They are neighbours in order. With k = m - b, ranks b to k - 1 are among them, and for each j < b either
    rank j or rank j + k is: the nearer one, and the lower one of two as near.

    Args:
        rows: m rows (w,); ranks 0 to b - 1 and k to m - 1 in order, the others in any.
        centre: (w,).
        b: values left out; 2 b < m.
    """
    k = len(rows) - b
    total = added(rows[b:k])
    for j in range(b):
        low, high = rows[j], rows[j + k]
        total += torch.where(centre - low > high - centre, high, low)
    return total / k


def added(rows: Sequence[Tensor]) -> Tensor:
    """The sum of some rows (w,)."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


@lru_cache(maxsize=256)
def _network(m: int, exact: frozenset[int], summed: frozenset[int]) -> tuple[tuple[int, int, bool, bool], ...]:
    """Comparators (i, j, whether the smaller is needed, whether the larger is), found from the last to the first."""
    wanted = [2 if rank in exact else 1 if rank in summed else 0 for rank in range(m)]
    needed = []
    for i, j in reversed(_merge_exchange(m)):
        if wanted[i] == wanted[j] < 2:
            continue
        needed.append((i, j, wanted[i] > 0, wanted[j] > 0))
        wanted[i] = wanted[j] = 2
    return tuple(reversed(needed))


def _merge_exchange(m: int) -> list[tuple[int, int]]:
    found = []
    top = 1 << max(0, (m - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            found += [(i, i + d) for i in range(m - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return found
