"""An order for a placement that is given: of the ops that can start first, the one with most behind it."""

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import Arrays, Ints
from baechi.placers.search.sweep import placed_tails
from baechi.sim.heap import heap_pop, heap_push
from baechi.sim.transfers import transfer_ticks

__all__ = ["resequence"]


@kernel
def resequence(a: Arrays, home: Ints, noise: float) -> Ints:
    """List scheduling on devices that are given, by the length of what follows; O(E + n log n).

    Args:
        a: the problem.
        home: (groups,) device of each group.
        noise: how far, as a fraction, chance moves the priorities.

    Returns:
        (ops,) a topological order.
    """
    ops, devices = len(a.rank), len(a.cap)
    tail = np.empty(ops, np.int64)
    placed_tails(a, home, tail)
    room = np.zeros(devices + 1, np.int64)
    for i in range(ops):
        room[home[a.group[i]] + 1] += 1
    for d in range(devices):
        room[d + 1] += room[d] + 1
    due = np.zeros((ops + devices, 2), np.int64)
    ready = np.zeros((ops + devices, 2), np.int64)
    waits = a.in_ptr[1:] - a.in_ptr[:-1]
    there = np.zeros(ops, np.int64)
    free = np.zeros(devices, np.int64)
    sequence = np.empty(ops, np.int64)
    for i in range(ops):
        d = home[a.group[i]]
        tail[i] = int((tail[i] + a.ticks[i, d]) * (1.0 + noise * (np.random.random() - 0.5)))
        if waits[i] == 0:
            heap_push(due[room[d] : room[d + 1]], 0, a.rank[i])
    for k in range(ops):
        d, now = _first_to_start(due, ready, room, free)
        mine, opened = due[room[d] : room[d + 1]], ready[room[d] : room[d + 1]]
        while mine[0, 0] > 0 and mine[1, 0] <= now:
            i = a.order[heap_pop(mine)]
            heap_push(opened, -tail[i], a.rank[i])
        i = a.order[heap_pop(opened)]
        sequence[k] = i
        free[d] = now + a.ticks[i, d]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                reader = a.rd_op[r]
                to = home[a.group[reader]]
                arrival = free[d] + (transfer_ticks(a, t, d, to) if to != d else 0)
                there[reader] = max(there[reader], arrival)
                waits[reader] -= 1
                if waits[reader] == 0:
                    heap_push(due[room[to] : room[to + 1]], there[reader], a.rank[reader])
    return sequence


@leaf
def _first_to_start(due: Ints, ready: Ints, room: Ints, free: Ints) -> tuple[int, int]:
    """The device that can start an op first, and when."""
    best, since = -1, 0
    for d in range(len(free)):
        if ready[room[d], 0] > 0:
            start = free[d]
        elif due[room[d], 0] > 0:
            start = max(free[d], due[room[d] + 1, 0])
        else:
            continue
        if best < 0 or start < since:
            best, since = d, start
    return best, since
