"""When an op can start and must end, in any plan that takes at most a given time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import Ints
from baechi.sim.certify.net import Net

__all__ = ["Windows", "find", "fresh", "homes", "sweep", "together"]

_WIDE = 12  # arrivals of one op that are looked at one by one


class Windows(NamedTuple):
    """What is known of every plan in question; grows while a time is being refuted.

    Attributes:
        head: (ops,) no op starts earlier.
        tail: (ops,) from the end of each op to the end of the step it takes at least this long.
        parent: (groups,) a forest: groups of one tree are on one device.
        nbytes: (groups,) what persists of each tree, at its root.
        apart: (groups, groups) whether the trees of two roots are on two devices; empty when that is
            not kept.
    """

    head: Ints
    tail: Ints
    parent: Ints
    nbytes: Ints
    apart: NDArray[np.bool_]

    def copy(self) -> "Windows":
        """The same, to go on from."""
        return Windows(*(column.copy() for column in self))


def fresh(net: Net, keep_apart: bool) -> Windows:
    """Nothing known yet."""
    n, groups = len(net.p), len(net.nbytes)
    side = groups if keep_apart else 0
    nothing = np.zeros((side, side), np.bool_)
    return Windows(np.zeros(n, np.int64), np.zeros(n, np.int64), np.arange(groups), net.nbytes.copy(), nothing)


@leaf
def find(parent: Ints, g: int) -> int:
    """The root of a group's tree."""
    while parent[g] != g:
        parent[g] = parent[parent[g]]
        g = parent[g]
    return int(g)


@maker
def homes(net: Net, w: Windows, home: Ints) -> None:
    """Write the root of each op's tree."""
    for i in range(len(home)):
        home[i] = find(w.parent, net.group[i])


@maker
def together(net: Net, w: Windows, a: int, b: int) -> bool:
    """Join two roots; false when they cannot share a device."""
    low, high = min(a, b), max(a, b)
    w.nbytes[low] += w.nbytes[high]
    w.parent[high] = low
    if w.nbytes[low] > net.room or (len(w.apart) > 0 and w.apart[low, high]):
        return False
    for g in range(len(w.apart)):
        if w.apart[high, g]:
            w.apart[low, g] = w.apart[g, low] = True
    return True


@maker
def sweep(net: Net, w: Windows, home: Ints) -> bool:
    """Raise heads and tails once over the edges; true when something rose.

    Of the ops that op i reads, those on its device run one after the other, the others' tensors are
    sent. Whichever share its device: if the one whose tensor arrives last does not, i waits for it;
    so i starts no earlier than the least, over k, of the later of two: the serial end of the k that
    arrive last, and the arrival of the next. Tails are heads of the graph read backwards.

    Source: the argument of Jung, Kirousis and Spirakis, "Lower bounds and efficient algorithms for
    multiprocessor scheduling of dags with communication delays", 1989, here without duplication.
    """
    n = len(net.p)
    late, who = np.empty(_WIDE, np.int64), np.empty(_WIDE, np.int64)
    release, length = np.empty(2 * _WIDE, np.int64), np.empty(2 * _WIDE, np.int64)
    rose = False
    for k in range(n):
        i = net.order[k]
        start = _start(i, net.in_ptr, net.in_op, net.in_c, net.p, home, w.apart, w.head, late, who, release, length)
        rose |= start > w.head[i]
        w.head[i] = max(w.head[i], start)
    for k in range(n):
        i = net.order[n - 1 - k]
        start = _start(i, net.out_ptr, net.out_op, net.out_c, net.p, home, w.apart, w.tail, late, who, release, length)
        rose |= start > w.tail[i]
        w.tail[i] = max(w.tail[i], start)
    return rose


@maker
def _start(
    i: int,
    ptr: Ints,
    op: Ints,
    c: Ints,
    p: Ints,
    home: Ints,
    apart: NDArray[np.bool_],
    at: Ints,
    late: Ints,
    who: Ints,
    release: Ints,
    length: Ints,
) -> int:
    """Earliest start of op `i` behind the ops `op[ptr[i]:ptr[i + 1]]`, of which any may share its device.

    The last four are room to work in: those that may be elsewhere, by arrival, and those that run
    on the device of `i`, by their own earliest start.
    """
    least, known, count = 0, 0, 0
    for k in range(ptr[i], ptr[i + 1]):
        u = op[k]
        end = at[u] + p[u]
        least = max(least, end)
        if home[u] == home[i]:
            if known < _WIDE:
                _insert(release, length, known, at[u], p[u])
                known += 1
        elif len(apart) > 0 and apart[home[u], home[i]]:
            least = max(least, end + c[k])
        elif count < _WIDE or end + c[k] > late[_WIDE - 1]:
            count = min(count, _WIDE - 1)
            j = count
            while j > 0 and late[j - 1] < end + c[k]:
                late[j], who[j] = late[j - 1], who[j - 1]
                j -= 1
            late[j], who[j] = end + c[k], u
            count += 1
    best = -1
    for k in range(count + 1):
        end = _serial(release, length, known)
        if best >= 0 and end >= best:
            break
        start = max(end, late[k]) if k < count else end
        best = start if best < 0 else min(best, start)
        if k < count:
            _insert(release, length, known, at[who[k]], p[who[k]])
            known += 1
    return int(max(least, best))


@leaf
def _insert(release: Ints, length: Ints, count: int, r: int, p: int) -> None:
    k = count
    while k > 0 and release[k - 1] > r:
        release[k], length[k] = release[k - 1], length[k - 1]
        k -= 1
    release[k], length[k] = r, p


@leaf
def _serial(release: Ints, length: Ints, count: int) -> int:
    """The end of jobs that one machine runs in the order in which they stand."""
    end = 0
    for k in range(count):
        end = max(end, release[k]) + length[k]
    return int(end)
