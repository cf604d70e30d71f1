"""Co-placement: grow colocation groups where sending a tensor costs more than running in parallel gains.

Baechi puts every op whose output has one reader into the reader's group, whatever the two cost: a
block of parallel branches becomes one group and runs serially. Here groups grow along a schedule
on as many devices as there are groups, as in dominant sequence clustering (Yang and Gerasoulis
1994): an op joins the group of the input that it waits for longest, and only if it then starts no
later than on a device of its own. Parallel branches therefore stay apart.

Four conditions keep the groups good for few devices, where a group is placed with its first op:

- nobody outside the two groups reads the input;
- the merge pays: their work, of which splitting them over two devices could save half at the most,
  is small beside the time that they would spend on sending;
- no group grows beyond a share of the step's work, or of its bytes;
- what costs nothing joins the neighbour that decides about it, never one that comes later.
"""

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import Arrays, Ints
from baechi.placers.clusters import find, roots
from baechi.placers.colocated import Bools
from baechi.placers.edges import Edges, edges_of
from baechi.placers.growth import Growth, begin, has_room, is_tiny, merge
from baechi.sim.heap import heap_pop, heap_push

__all__ = ["co_placed"]


@kernel
def co_placed(a: Arrays, parent: Ints, given: Bools, phase: Ints, limit: float, ratio: float, tiny: int) -> Ints:
    """Merge groups where that shortens the step, in O((V + E) log V) time.

    Args:
        parent: (ops,) the first op of the set that each op is in already.
        given: (ops,) what is there before the step.
        phase: (ops,) a number for the phase of each op.
        limit: the largest share of the step's work, and of its bytes, that a group may grow to.
        ratio: the most work that two merged groups may have, as a multiple of the time in which
            they would send each other their tensors.
        tiny: ticks of ops that join a neighbour in any case.

    Returns:
        (ops,) the first op of the set that each op is in.
    """
    e = edges_of(a)
    g = begin(a, e, parent.copy(), given, limit, ratio, tiny)
    _join_tiny(a, e, g, phase)
    _grow(a, e, g)
    return roots(g.parent)


@maker
def _join_tiny(a: Arrays, e: Edges, g: Growth, phase: Ints) -> None:
    """What costs next to nothing joins its reader or its input, if there is one such group."""
    for k in range(len(a.order) - 1, -1, -1):
        i = a.order[k]
        if g.given[i] == 1 or (is_tiny(g, i) and _leads(e, g, phase, i)):
            own, other = find(g.parent, i), -1
            for r in range(e.to_ptr[i], e.to_ptr[i + 1]):
                other = _only(g, own, other, e.reader[r])
            _join_only(g, own, other)
    for i in a.order:
        if is_tiny(g, i) and g.given[i] == 0:
            own, other = find(g.parent, i), -1
            for k in range(e.ptr[i], e.ptr[i + 1]):
                if g.given[e.source[k]] == 0:
                    other = _only(g, own, other, e.source[k])
            _join_only(g, own, other)


@leaf
def _only(g: Growth, own: int, other: int, j: int) -> int:
    """The one group beside `own` seen so far: -1 for none, -2 for several."""
    root = find(g.parent, j)
    if root in (own, other):
        return other
    return int(root) if other == -1 else -2


@maker
def _join_only(g: Growth, own: int, other: int) -> None:
    if other >= 0 and has_room(g, own, other):
        merge(g, own, other)


@maker
def _leads(e: Edges, g: Growth, phase: Ints, i: int) -> bool:
    """Whether no reader of `i` is of another phase or waits for anything dearer."""
    for r in range(e.to_ptr[i], e.to_ptr[i + 1]):
        reader = e.reader[r]
        if phase[reader] != phase[i] or g.dearest[reader] > e.ticks[e.at[r]]:
            return False
    return True


@maker
def _grow(a: Arrays, e: Edges, g: Growth) -> None:
    """Schedule the ops, those farthest from the end first, and merge on the way."""
    ops = len(a.rank)
    origin = np.empty(ops, np.int64)
    for i in range(ops):
        origin[i] = find(g.parent, i)
    traffic = _traffic(e, origin)
    level = g.cost.copy()
    for at in range(ops - 1, -1, -1):
        i = a.order[at]
        for k in range(e.ptr[i], e.ptr[i + 1]):
            j = e.source[k]
            sent = 0 if origin[i] == origin[j] else e.ticks[k]
            level[j] = max(level[j], g.cost[j] + sent + level[i])
    waiting = e.ptr[1:] - e.ptr[:-1]
    ready = np.empty((ops + 1, 2), np.int64)
    ready[0, 0] = 0
    for i in range(ops):
        if waiting[i] == 0:
            heap_push(ready, -level[i], i)
    while ready[0, 0] > 0:
        i = heap_pop(ready)
        own = find(g.parent, i)
        late = np.empty(e.ptr[i + 1] - e.ptr[i], np.int64)
        for k in range(len(late)):
            late[k] = -g.finish[e.source[e.ptr[i] + k]] - e.ticks[e.ptr[i] + k]
        _schedule(e, g, traffic, i, own, e.ptr[i] + np.argsort(late, kind="mergesort"))
        for r in range(e.to_ptr[i], e.to_ptr[i + 1]):
            j = e.reader[r]
            waiting[j] -= 1
            if waiting[j] == 0:
                heap_push(ready, -level[j], j)


@maker
def _traffic(e: Edges, origin: Ints) -> Ints:
    """(edges,) ticks of transfer between the two groups of each edge, both ways."""
    key = np.empty(len(e.source), np.int64)
    for i in range(len(origin)):
        for k in range(e.ptr[i], e.ptr[i + 1]):
            one, other = origin[i], origin[e.source[k]]
            key[k] = min(one, other) * len(origin) + max(one, other)
    order = np.argsort(key)
    traffic = np.zeros(len(key), np.int64)
    first = 0
    while first < len(key):
        last, total = first, 0
        while last < len(key) and key[order[last]] == key[order[first]]:
            total += e.ticks[order[last]]
            last += 1
        for k in range(first, last):
            traffic[order[k]] = total
        first = last
    return traffic


@maker
def _schedule(e: Edges, g: Growth, traffic: Ints, i: int, own: int, arrivals: Ints) -> None:
    start = _start(e, g, i, own, own)
    if len(arrivals) > 0 and g.busy[own] == 0:
        other = find(g.parent, e.source[arrivals[0]])
        if _pays(e, g, traffic, arrivals[0], i) and _start(e, g, i, own, other) <= start:
            own = merge(g, own, other)
            start = _start(e, g, i, own, own)
    for k in arrivals:
        j = e.source[k]
        if g.given[j] == 1 and g.busy[find(g.parent, j)] == 0 and _pays(e, g, traffic, k, i):
            own = merge(g, own, find(g.parent, j))
    start = min(start, _start(e, g, i, own, own))
    for k in arrivals:
        start = _absorb(e, g, traffic, k, i, start)
    own = find(g.parent, i)
    g.finish[i] = g.free[own] = start + g.cost[i]
    g.busy[own] += g.cost[i]


@maker
def _start(e: Edges, g: Growth, i: int, own: int, other: int) -> int:
    """When op `i` of group `own` would start if `own` and `other` were one group."""
    latest = max(g.free[own], g.free[other])
    for k in range(e.ptr[i], e.ptr[i + 1]):
        j = e.source[k]
        root = find(g.parent, j)
        latest = max(latest, g.finish[j] + (0 if root in (own, other) else e.ticks[k]))
    return int(latest)


@maker
def _absorb(e: Edges, g: Growth, traffic: Ints, k: int, i: int, start: int) -> int:
    """Bring the source of edge `k` into the group of `i` unless that delays `i`; returns when `i` starts."""
    j = e.source[k]
    own, other = find(g.parent, i), find(g.parent, j)
    if own == other or g.work[other] > g.cost[j]:
        return start
    near = False
    for m in range(e.ptr[j], e.ptr[j + 1]):
        near = near or find(g.parent, e.source[m]) == own
    if not (near and _pays(e, g, traffic, k, i)):
        return start
    end = _start(e, g, j, own, own) + g.cost[j]
    new = end
    for m in range(e.ptr[i], e.ptr[i + 1]):
        if m != k:
            new = max(new, g.finish[e.source[m]] + (0 if find(g.parent, e.source[m]) == own else e.ticks[m]))
    if new > start:
        return start
    own = merge(g, own, other)
    g.finish[j] = g.free[own] = end
    return int(new)


@maker
def _pays(e: Edges, g: Growth, traffic: Ints, k: int, i: int) -> bool:
    """Whether the group of the source of edge `k` may and should be merged with that of its reader `i`."""
    a, b = find(g.parent, e.source[k]), find(g.parent, i)
    if a == b or not has_room(g, a, b):
        return False
    if min(g.work[a], g.work[b]) <= g.tiny[0]:
        return True
    if g.work[a] + g.work[b] > g.ratio[0] * traffic[k]:
        return False
    for r in range(e.to_ptr[e.source[k]], e.to_ptr[e.source[k] + 1]):
        root = find(g.parent, e.reader[r])
        if root != a and root != b:
            return False
    return True
