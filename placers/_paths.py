"""Compiled sweeps over a directed acyclic graph whose nodes are numbered in topological order.

Edges are sorted by (tail, head), so one pass over the edge arrays is a topological sweep. A *cut* is
a node on every path; times restart at each cut, because the programme splits there into blocks whose
optima add up.
"""

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel

__all__ = ["fill", "find_cuts", "lower_bounds", "match", "merge_chains", "relay", "sweep", "topological"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@kernel
def topological(n: int, src: Ints, dst: Ints) -> tuple[Ints, int]:
    """Number the nodes by Kahn's rule, first in first out; edges are sorted by (src, dst).

    Returns:
        position int64[n] of each node, and how many nodes got one (fewer than `n` on a cycle).
    """
    first = np.searchsorted(src, np.arange(n + 1))
    waiting = np.zeros(n, np.int64)
    for e in range(len(dst)):
        waiting[dst[e]] += 1
    queue = np.empty(n, np.int64)
    filled = 0
    for i in range(n):
        if waiting[i] == 0:
            queue[filled] = i
            filled += 1
    position = np.zeros(n, np.int64)
    done = 0
    while done < filled:
        i = queue[done]
        position[i] = done
        done += 1
        for e in range(first[i], first[i + 1]):
            waiting[dst[e]] -= 1
            if waiting[dst[e]] == 0:
                queue[filled] = dst[e]
                filled += 1
    return position, done


@kernel
def find_cuts(n: int, u: Ints, v: Ints) -> Bools:
    """Find the nodes that every path runs through: no edge, source or sink lies across them."""
    has_in = np.zeros(n, np.bool_)
    has_out = np.zeros(n, np.bool_)
    for e in range(len(u)):
        has_out[u[e]] = True
        has_in[v[e]] = True
    last_source = 0
    for i in range(n):
        if not has_in[i]:
            last_source = i
    cut = np.zeros(n, np.bool_)
    reach = 0
    e = 0
    for i in range(n):
        cut[i] = has_in[i] and has_out[i] and i > last_source and reach <= i
        if not has_out[i]:
            break
        while e < len(u) and u[e] == i:
            reach = max(reach, v[e])
            e += 1
    return cut


@kernel
def sweep(k: Floats, u: Ints, v: Ints, c: Floats, cut: Bools) -> tuple[Floats, Floats]:
    """Longest path before each node's start, and from its start to its block's end."""
    n = len(k)
    head = np.zeros(n)
    for e in range(len(u)):
        if not cut[v[e]]:
            head[v[e]] = max(head[v[e]], head[u[e]] + k[u[e]] + c[e])
    tail = np.zeros(n)
    e = len(u) - 1
    for i in range(n - 1, -1, -1):
        rest = 0.0
        while e >= 0 and u[e] == i:
            rest = max(rest, c[e] + (0.0 if cut[v[e]] else tail[v[e]]))
            e -= 1
        tail[i] = k[i] + rest
    return head, tail


@kernel
def _least_maximum(a: Floats, c: Floats) -> float:
    """Minimise max(a + c (1 - y)) over y >= 0 that sum to at most 1; the answer is never too high."""
    low: float = a.max()
    high: float = (a + c).max()
    if _saving(a, c, low) <= 1.0:
        return low
    for _ in range(60):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        if _saving(a, c, middle) <= 1.0:
            high = middle
        else:
            low = middle
    return low


@kernel
def _saving(a: Floats, c: Floats, level: float) -> float:
    """Least sum of y that keeps every a + c (1 - y) at or under `level`."""
    total = 0.0
    for i in range(len(a)):
        if c[i] > 0.0 and a[i] + c[i] > level:
            total += (a[i] + c[i] - level) / c[i]
    return total


@kernel
def lower_bounds(k: Floats, u: Ints, v: Ints, c: Floats, by_head: Ints, cut: Bools) -> tuple[Floats, Floats]:
    """Bounds on any solution's `sweep`: heads under the parents' rows alone, tails under the children's."""
    n = len(k)
    head = np.zeros(n)
    a = np.empty(len(u))
    d = np.empty(len(u))
    p = 0
    for i in range(n):
        m = 0
        while p < len(u) and v[by_head[p]] == i:
            e = by_head[p]
            a[m] = head[u[e]] + k[u[e]]
            d[m] = c[e]
            m += 1
            p += 1
        if m > 0 and not cut[i]:
            head[i] = _least_maximum(a[:m], d[:m])
    tail = np.zeros(n)
    e = len(u) - 1
    for i in range(n - 1, -1, -1):
        m = 0
        while e >= 0 and u[e] == i:
            a[m] = 0.0 if cut[v[e]] else tail[v[e]]
            d[m] = c[e]
            m += 1
            e -= 1
        tail[i] = k[i]
        if m > 0:
            tail[i] += _least_maximum(a[:m], d[:m])
    return head, tail


@kernel
def fill(order: Ints, u: Ints, v: Ints, y: Floats, n: int) -> None:
    """Raise y[order] greedily, in place, as far as each node's one child and one parent allow."""
    out_left = np.ones(n)
    in_left = np.ones(n)
    for e in range(len(u)):
        out_left[u[e]] -= y[e]
        in_left[v[e]] -= y[e]
    for e in order:
        more = min(out_left[u[e]], in_left[v[e]], 1.0 - y[e])
        if more > 0.0:
            y[e] += more
            out_left[u[e]] -= more
            in_left[v[e]] -= more


@kernel
def _ration(a: Floats, c: Floats, goal: float, most: Floats, y: Floats) -> None:
    """Least y that brings every a + c (1 - y) to `goal`, or as near as y <= most and sum y <= 1 allow."""
    low = goal
    if _saving(a, c, goal) > 1.0:
        high = (a + c).max()
        for _ in range(40):
            middle = 0.5 * (low + high)
            if _saving(a, c, middle) <= 1.0:
                high = middle
            else:
                low = middle
        low = high
    for i in range(len(a)):
        need = 0.0
        if c[i] > 0.0 and a[i] + c[i] > low:
            need = (a[i] + c[i] - low) / c[i]
        y[i] = max(0.0, min(need, most[i], 1.0))


@kernel
def relay(
    k: Floats, u: Ints, v: Ints, c: Floats, by_head: Ints, cut: Bools, goal: Floats, y: Floats, backward: bool
) -> None:
    """Hand y on from edges with time to spare to late ones, in place.

    Each node's edges in (out, when `backward`) get just what its deadline asks: the block's `goal`
    less the tail (head) that the present y gives.
    """
    n = len(k)
    m = len(u)
    head, tail = sweep(k, u, v, c * (1.0 - y), cut)
    left = np.ones(n)
    for e in range(m):
        left[v[e] if backward else u[e]] -= y[e]
    a = np.empty(m)
    d = np.empty(m)
    most = np.empty(m)
    share = np.empty(m)
    p = m - 1 if backward else 0
    for step in range(n):
        i = n - 1 - step if backward else step
        start = p
        count = 0
        while (p >= 0 and u[p] == i) if backward else (p < m and v[by_head[p]] == i):
            e = p if backward else by_head[p]
            other = v[e] if backward else u[e]
            left[other] += y[e]
            most[count] = left[other]
            d[count] = c[e]
            if backward:
                a[count] = 0.0 if cut[other] else tail[other]
            else:
                a[count] = head[other] + k[other]
            count += 1
            p += -1 if backward else 1
        if count == 0:
            continue
        end = goal[i if backward else u[by_head[start]]]
        due = end - (head[i] + k[i] if backward else 0.0 if cut[i] else tail[i])
        _ration(a[:count], d[:count], max(due, a[:count].max()), most[:count], share[:count])
        latest = 0.0
        for j in range(count):
            e = start - j if backward else by_head[start + j]
            y[e] = share[j]
            left[v[e] if backward else u[e]] -= share[j]
            latest = max(latest, a[j] + d[j] * (1.0 - share[j]))
        if backward:
            tail[i] = k[i] + latest
        elif not cut[i]:
            head[i] = latest


@kernel
def merge_chains(k: Floats, u: Ints, v: Ints, chained: Bools) -> tuple[Ints, Floats]:
    """Tie the head of each chained edge to its chain's first node.

    Returns:
        that first node, and the delay after its start.
    """
    first = np.arange(len(k))
    delay = np.zeros(len(k))
    for e in range(len(u)):
        if chained[e]:
            first[v[e]] = first[u[e]]
            delay[v[e]] = delay[u[e]] + k[u[e]]
    return first, delay


@kernel
def match(order: Ints, src: Ints, dst: Ints, n: int) -> tuple[Ints, Ints]:
    """Accept edges in `order` while their ends are free: each node's child and parent, or -1."""
    child = np.full(n, -1)
    parent = np.full(n, -1)
    for e in order:
        if child[src[e]] < 0 and parent[dst[e]] < 0:
            child[src[e]] = dst[e]
            parent[dst[e]] = src[e]
    return child, parent
