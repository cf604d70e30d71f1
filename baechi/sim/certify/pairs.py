"""What any two ops know of each other: the least time between them when they are on two devices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import maker
from baechi.cost.problem import Ints
from baechi.sim.certify.net import Net
from baechi.sim.certify.windows import Windows, find, together

__all__ = ["Between", "between", "join_pairs", "raise_pairs"]


class Between(NamedTuple):
    """Least ticks from the end of one op to the start of another that waits for it; -1 without a path.

    Attributes:
        any: (ops, ops), from the column's op to the row's, wherever they are.
        apart: the same when the two are on two devices: some edge on each path is sent over.
        back: the transpose of `apart`.
    """

    any: Ints
    apart: Ints
    back: Ints


@maker
def between(net: Net, w: Windows, home: Ints) -> Between:
    """The least times, in O(ops x edges).

    With u the last op on a path from a to v, and a and v apart: if u is on v's device, the path from
    a to u is sent over; if u is on a's, the edge is; if it may be on either or another, one of the two is.
    """
    n = len(net.p)
    anywhere, apart = np.full((n, n), -1, np.int64), np.full((n, n), -1, np.int64)
    for x in range(n):
        v = net.order[x]
        for k in range(net.in_ptr[v], net.in_ptr[v + 1]):
            u, c = net.in_op[k], net.in_c[k]
            same = home[u] == home[v]
            sent = c if len(w.apart) > 0 and w.apart[home[u], home[v]] else 0
            anywhere[v, u], apart[v, u] = max(anywhere[v, u], sent), max(apart[v, u], c)
            for a in range(n):
                if anywhere[u, a] < 0:
                    continue
                way = anywhere[u, a] + net.p[u]
                over = apart[u, a] + net.p[u]
                anywhere[v, a] = max(anywhere[v, a], way + sent)
                if home[u] == home[a]:
                    over = way + c
                elif not same:
                    over = max(min(over, way + c), way + sent)
                apart[v, a] = max(apart[v, a], over)
    return Between(anywhere, apart, apart.T.copy())


@maker
def join_pairs(net: Net, w: Windows, home: Ints, b: Between, limit: int) -> int:
    """Join trees whose ops cannot be on two devices within the limit; 2 when that is impossible, 1 when some joined."""
    joined = 0
    for v in range(len(net.p)):
        latest = limit - net.p[v] - w.tail[v]
        for u in range(len(net.p)):
            if b.apart[v, u] < 0 or home[u] == home[v] or w.head[u] + net.p[u] + b.apart[v, u] <= latest:
                continue
            one, other = find(w.parent, home[u]), find(w.parent, home[v])
            if one != other:
                joined = 1
                if not together(net, w, one, other):
                    return 2
    return joined


@maker
def raise_pairs(net: Net, w: Windows, home: Ints, b: Between) -> bool:
    """Raise heads and tails by all ops before and after each; true when something rose."""
    rose = _raise(net.order, net.p, w.head, b.apart, home, w.apart)
    return _raise(net.order[::-1], net.p, w.tail, b.back, home, w.apart) or rose


@maker
def _raise(order: Ints, p: Ints, at: Ints, gap: Ints, home: Ints, apart: NDArray[np.bool_]) -> bool:
    """Starts of the ops, in topological order, of which the trees that come late must share the device.

    A tree that is elsewhere holds op v up until `reach`, so all trees that reach beyond v's start are on v's
    device, where their ops before v run one after the other. The least start for which that agrees counts.
    """
    n = len(p)
    reach = np.full(n if n == 0 else home.max() + 1, -1, np.int64)
    release, length, near = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    rose = False
    for v in order:
        start, count = at[v], 0
        for u in range(n):
            if gap[v, u] < 0:
                continue
            near[count] = u
            count += 1
            if home[u] != home[v]:
                arrival = at[u] + p[u] + gap[v, u]
                reach[home[u]] = max(reach[home[u]], arrival)
                if len(apart) > 0 and apart[home[u], home[v]]:
                    start = max(start, arrival)
        start = _least_start(start, home[v], near[:count], p, at, home, reach, release, length)
        for k in range(count):
            reach[home[near[k]]] = -1
        rose |= start > at[v]
        at[v] = start
    return rose


@maker
def _least_start(
    start: int, here: int, near: Ints, p: Ints, at: Ints, home: Ints, reach: Ints, release: Ints, length: Ints
) -> int:
    """The least start, from `start` on, by which the ops that must share the device have run.

    The later the start, the fewer must, each tree of groups up to its reach: so it is looked for by halving.
    """
    end = _end_of_shared(start, here, near, p, at, home, reach, release, length)
    if end <= start:
        return start
    steps, count = np.empty(len(near), np.int64), 0
    for u in near:
        if home[u] != here and start < reach[home[u]] < end:
            steps[count] = reach[home[u]]
            count += 1
    steps = steps[:count][np.argsort(steps[:count], kind="mergesort")]
    low, high = 0, count  # at every step before `low` the ops that must share end later than it
    while low < high:
        middle = (low + high) // 2
        later = _end_of_shared(steps[middle], here, near, p, at, home, reach, release, length)
        if later <= steps[middle]:
            high = middle
        else:
            low, end = middle + 1, later
    return min(end, steps[low]) if low < count else end


@maker
def _end_of_shared(
    start: int, here: int, near: Ints, p: Ints, at: Ints, home: Ints, reach: Ints, release: Ints, length: Ints
) -> int:
    """When the ops have run that must share the device of an op that starts at `start`."""
    count = 0
    for u in near:
        if p[u] > 0 and (home[u] == here or reach[home[u]] > start):
            release[count], length[count] = at[u], p[u]
            count += 1
    end = 0
    for k in np.argsort(release[:count], kind="mergesort"):
        end = max(end, release[k]) + length[k]
    return int(end)
