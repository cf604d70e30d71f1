"""Work that must be done in an interval, against what the devices can do in it."""

import numpy as np

from baechi.cost.jit import maker
from baechi.cost.problem import Ints
from baechi.sim.certify.net import Net
from baechi.sim.certify.windows import Windows

__all__ = ["overloads"]


@maker
def overloads(net: Net, w: Windows, limit: int, most: int) -> bool:
    """Whether some interval must hold more work than the devices do in it, in O(most x ops log ops).

    An op with window [head, limit - tail] does at least p - (from - head)^+ - (limit - tail - to)^+
    of its time between `from` and `to`, on however slow a device and however often interrupted.

    Args:
        net: the step.
        w: the windows.
        limit: the time in question.
        most: intervals begin at this many of the heads, at the most.

    Source: Fernandez and Bussell, "Bounds on the number of processors and time for multiprocessor
    optimal schedules", 1973.
    """
    if most == 0:
        return False
    n = len(net.p)
    heads = w.head[np.argsort(w.head, kind="mergesort")]
    begin, end = np.empty(n, np.int64), np.empty(n, np.int64)
    for x in range(0, len(heads), max(1, len(heads) // most)):
        start, count = heads[x], 0
        for i in range(n):
            left = net.p[i] - max(0, start - w.head[i])
            if left > 0:
                end[count] = limit - w.tail[i]
                begin[count] = end[count] - left
                count += 1
        by_begin = np.argsort(begin[:count], kind="mergesort")
        by_end = np.argsort(end[:count], kind="mergesort")
        if _exceeds(begin[by_begin], end[by_end], start, net.machines):
            return True
    return False


@maker
def _exceeds(begin: Ints, end: Ints, start: int, machines: int) -> bool:
    """Whether the work done in [begin, end] intervals, each at speed 1, is ever more than machines x time."""
    done, now, running, x = 0, start, 0, 0
    for y in range(len(end)):
        while x < len(begin) and begin[x] <= end[y]:
            done += running * (begin[x] - now)
            now = begin[x]
            running += 1
            x += 1
        done += running * (end[y] - now)
        now = end[y]
        running -= 1
        if done > machines * (now - start):
            return True
    return False
