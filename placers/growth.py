"""Groups of ops while co-placement lets them grow: their work, their bytes, and what they may grow to."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import Arrays, Ints
from baechi.placers.clusters import find, union
from baechi.placers.colocated import Bools
from baechi.placers.edges import Edges

__all__ = ["Growth", "begin", "has_room", "is_tiny", "merge"]


class Growth(NamedTuple):
    """Groups while they grow; by op, or by the group's first op.

    Attributes:
        parent: sets of ops.
        cost: (ops,) ticks.
        given: (ops,) whether an op is there from the start, and so free to sit with whoever reads it.
        dearest: (ops,) the most that an op waits for one transfer.
        work, nbytes, busy, free: of each group: ticks, bytes, ticks scheduled already, and when it is next free.
        finish: (ops,) when a scheduled op ends.
        most_work, most_nbytes: (1,) what a group may grow to.
        ratio: (1,) the most work of two merged groups, as a multiple of what they send each other.
        tiny: (1,) ticks of ops that join a neighbour in any case.
    """

    parent: Ints
    cost: Ints
    given: Ints
    dearest: Ints
    work: Ints
    nbytes: Ints
    busy: Ints
    free: Ints
    finish: Ints
    most_work: Ints
    most_nbytes: Ints
    ratio: Ints
    tiny: Ints


@maker
def begin(a: Arrays, e: Edges, parent: Ints, given: Bools, limit: float, ratio: float, tiny: int) -> Growth:
    """The groups to begin with; arguments as for `co_placed`."""
    ops = len(parent)
    cost = a.ticks[:, 0].copy()
    constant = np.zeros(ops, np.int64)
    dearest = np.zeros(ops, np.int64)
    for i in a.order:
        light = cost[i] <= tiny or given[i]
        for k in range(e.ptr[i], e.ptr[i + 1]):
            light = light and constant[e.source[k]] == 1
        constant[i] = 1 if light else 0
    work, nbytes = np.zeros(ops, np.int64), np.zeros(ops, np.int64)
    for i in range(ops):
        for k in range(e.ptr[i], e.ptr[i + 1]):
            if constant[e.source[k]] == 0:
                dearest[i] = max(dearest[i], e.ticks[k])
        root = find(parent, i)
        work[root] += cost[i]
        nbytes[root] += a.persistent[i]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            nbytes[root] += a.t_size[t]
    most_nbytes = limit * nbytes.sum()
    for i in range(ops):
        most_nbytes = max(most_nbytes, float(nbytes[i]))
    return Growth(
        parent,
        cost,
        constant,
        dearest,
        work,
        nbytes,
        np.zeros(ops, np.int64),
        np.zeros(ops, np.int64),
        np.zeros(ops, np.int64),
        np.array([limit * cost.sum()]),
        np.array([most_nbytes]),
        np.array([ratio]),
        np.array([tiny]),
    )


@leaf
def is_tiny(g: Growth, i: int) -> bool:
    """Whether the group of op `i` joins a neighbour in any case."""
    return bool(g.work[find(g.parent, i)] <= g.tiny[0])


@maker
def has_room(g: Growth, a: int, b: int) -> bool:
    """Whether two groups may become one without outgrowing the limits."""
    light = min(g.work[a], g.work[b]) <= g.tiny[0] or g.work[a] + g.work[b] <= g.most_work[0]
    small = min(g.nbytes[a], g.nbytes[b]) == 0 or g.nbytes[a] + g.nbytes[b] <= g.most_nbytes[0]
    return bool(light and small)


@maker
def merge(g: Growth, a: int, b: int) -> int:
    """Make one group of two; returns it."""
    root = union(g.parent, a, b)
    g.work[root] = g.work[a] + g.work[b]
    g.busy[root] = g.busy[a] + g.busy[b]
    g.nbytes[root] = g.nbytes[a] + g.nbytes[b]
    g.free[root] = max(g.free[a], g.free[b])
    return root
