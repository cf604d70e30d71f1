"""Ops that share a device run one after the other: how long that takes, and which must come first."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import Ints
from baechi.sim.certify.net import Net
from baechi.sim.certify.windows import Windows

__all__ = ["Trees", "conflict", "one_machine", "select", "too_long", "trees_of"]


class Trees(NamedTuple):
    """The ops of each tree of groups, by their heads.

    Attributes:
        ptr, op: ops of each root; other groups have none.
        work: (groups,) ticks of each root's ops.
    """

    ptr: Ints
    op: Ints
    work: Ints


@maker
def trees_of(net: Net, w: Windows, home: Ints) -> Trees:
    """The trees of the windows, given the root of each op."""
    groups = len(w.parent)
    ptr, work = np.zeros(groups + 1, np.int64), np.zeros(groups, np.int64)
    for i in range(len(home)):
        ptr[home[i] + 1] += 1
        work[home[i]] += net.p[i]
    for g in range(groups):
        ptr[g + 1] += ptr[g]
    at, op = ptr.copy(), np.empty(len(home), np.int64)
    for i in np.argsort(w.head, kind="mergesort"):
        op[at[home[i]]] = i
        at[home[i]] += 1
    return Trees(ptr, op, work)


@maker
def too_long(net: Net, w: Windows, trees: Trees, limit: int) -> bool:
    """Whether the ops of some tree, one after the other, end after the limit."""
    heap = np.empty((len(net.p) + 1, 2), np.int64)
    for g in range(len(w.parent)):
        members = trees.op[trees.ptr[g] : trees.ptr[g + 1]]
        if len(members) > 1 and one_machine(members, net, w, heap) > limit:
            return True
    return False


@maker
def one_machine(ops: Ints, net: Net, w: Windows, heap: Ints) -> int:
    """Least end, tails included, of ops, sorted by their heads, on one device that may interrupt them.

    Source: Jackson's preemptive schedule; Carlier and Pinson, "An algorithm for solving the job-shop
    problem", 1989.
    """
    heap[0, 0] = 0
    now, best, k = 0, 0, 0
    while k < len(ops) or heap[0, 0] > 0:
        if heap[0, 0] == 0:
            now = max(now, w.head[ops[k]])
        while k < len(ops) and w.head[ops[k]] <= now:
            _push(heap, -w.tail[ops[k]], net.p[ops[k]])
            k += 1
        left = heap[1, 1]
        if k < len(ops) and now + left > w.head[ops[k]]:
            heap[1, 1] = left - (w.head[ops[k]] - now)
            now = w.head[ops[k]]
            continue
        now += left
        best = max(best, now - heap[1, 0])
        _pop(heap)
    return int(best)


@leaf
def _push(heap: Ints, key: int, value: int) -> None:
    """Add to a binary heap of (key, value) rows behind a count, smallest key first."""
    heap[0, 0] += 1
    i = heap[0, 0]
    while i > 1 and heap[i >> 1, 0] > key:
        heap[i, 0], heap[i, 1] = heap[i >> 1, 0], heap[i >> 1, 1]
        i >>= 1
    heap[i, 0], heap[i, 1] = key, value


@leaf
def _pop(heap: Ints) -> None:
    count = heap[0, 0]
    key, value = heap[count, 0], heap[count, 1]
    count -= 1
    heap[0, 0] = count
    i = 1
    while 2 * i <= count:
        down = 2 * i
        if down < count and heap[down + 1, 0] < heap[down, 0]:
            down += 1
        if key <= heap[down, 0]:
            break
        heap[i, 0], heap[i, 1] = heap[down, 0], heap[down, 1]
        i = down
    heap[i, 0], heap[i, 1] = key, value


@leaf
def conflict(net: Net, w: Windows, i: int, j: int, limit: int) -> bool:
    """Whether op `i` cannot run before op `j` on one device, nor after it."""
    both = net.p[i] + net.p[j]
    return bool(w.head[i] + both + w.tail[j] > limit and w.head[j] + both + w.tail[i] > limit)


@maker
def select(net: Net, w: Windows, trees: Trees, limit: int, most: int) -> int:
    """Raise heads and tails by the order that ops of a tree must have; 2 on a contradiction, 1 when one rose.

    Trees of more than `most` ops are left out: it takes the square of their number.
    """
    rose = 0
    for g in range(len(w.parent)):
        begin, end = trees.ptr[g], trees.ptr[g + 1]
        if end - begin > most:
            continue
        for x in range(begin, end):
            i = trees.op[x]
            for y in range(x + 1, end):
                j = trees.op[y]
                if net.p[i] == 0 or net.p[j] == 0:
                    continue
                both = net.p[i] + net.p[j]
                i_first = w.head[i] + both + w.tail[j] <= limit
                j_first = w.head[j] + both + w.tail[i] <= limit
                if not i_first and not j_first:
                    return 2
                if not i_first and _before(net, w, j, i):
                    rose = 1
                if not j_first and _before(net, w, i, j):
                    rose = 1
    return rose


@leaf
def _before(net: Net, w: Windows, i: int, j: int) -> bool:
    """Note that op `i` ends before op `j` starts; whether that is news."""
    start, end = w.head[i] + net.p[i], w.tail[j] + net.p[j]
    news = start > w.head[j] or end > w.tail[i]
    w.head[j], w.tail[i] = max(w.head[j], start), max(w.tail[i], end)
    return bool(news)
