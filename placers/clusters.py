"""Sets of ops that will share a device, as they grow: union-find on arrays, for compiled loops."""

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import Ints

__all__ = ["find", "first_members", "roots", "union"]


@leaf
def find(parent: Ints, i: int) -> int:
    """The set of op `i`: the lowest index among its members."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@leaf
def union(parent: Ints, i: int, j: int) -> int:
    """Merge the sets of two ops; returns the merged one."""
    a, b = find(parent, i), find(parent, j)
    root = min(a, b)
    parent[max(a, b)] = root
    return root


@kernel
def roots(parent: Ints) -> Ints:
    """The set of every op."""
    found = parent.copy()
    for i in range(len(parent)):
        found[i] = find(parent, i)
    return found


@kernel
def first_members(group: Ints, groups: int) -> Ints:
    """Sets to begin with: of each op, the first op of its group."""
    first = group.copy()
    seen = np.full(groups, -1, np.int64)
    for i in range(len(group)):
        if seen[group[i]] < 0:
            seen[group[i]] = i
        first[i] = seen[group[i]]
    return first
