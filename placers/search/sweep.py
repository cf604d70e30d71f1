"""The makespan of a schedule in one pass over its sequence: what a search can afford for every move."""

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import PARALLEL, UNLIMITED_CORES, Arrays, Ints
from baechi.sim.transfers import transfer_ticks

__all__ = ["NO_LIMIT", "fastest_tails", "is_exact", "placed_tails", "sweep"]

NO_LIMIT = 1 << 62


@leaf
def sweep(a: Arrays, home: Ints, sequence: Ints, tail: Ints, limit: int, end: Ints, free: Ints) -> int:
    """Makespan of a schedule whose transfers never wait for each other and whose cores are its own.

    What contention adds only delays, so this is a lower bound of the simulated makespan, and equal
    to it where `is_exact`. It stops at the first op that cannot end in time.

    Args:
        a: the problem.
        home: (groups,) device of each group.
        sequence: (ops,) a topological order.
        tail: (ops,) ticks that surely follow each op.
        limit: what the caller would accept; a result above it means "more than the limit".
        end, free: room for (ops,) and (devices,) times.
    """
    for d in range(len(free)):
        free[d] = 0
    span = 0
    for k in range(len(sequence)):  # an iterator would count a reference, which leaves do not
        i = sequence[k]
        d = home[a.group[i]]
        start = free[d]
        for r in range(a.in_ptr[i], a.in_ptr[i + 1]):
            t = a.in_t[r]
            there = end[a.t_op[t]]
            source = home[a.group[a.t_op[t]]]
            if source != d:
                there += transfer_ticks(a, t, source, d)
            start = max(start, there)
        end[i] = free[d] = start + a.ticks[i, d]
        span = max(span, end[i])
        if end[i] + tail[i] > limit:
            return int(limit + 1)
    return int(span)


@kernel
def is_exact(a: Arrays) -> bool:
    """Whether `sweep` gives what the simulator would."""
    return bool(a.contention == PARALLEL and a.cores.min() >= UNLIMITED_CORES)


@maker
def fastest_tails(a: Arrays) -> Ints:
    """(ops,) ticks of the longest chain behind each op, every op on its fastest device, transfers free."""
    tail = np.zeros(len(a.rank), np.int64)
    for k in range(len(a.order) - 1, -1, -1):
        i = a.order[k]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                reader = a.rd_op[r]
                tail[i] = max(tail[i], tail[reader] + a.ticks[reader].min())
    return tail


@leaf
def placed_tails(a: Arrays, home: Ints, tail: Ints) -> None:
    """Fill in the ticks of the longest chain behind each op where the groups are, transfers included."""
    for k in range(len(a.order) - 1, -1, -1):
        i = a.order[k]
        d = home[a.group[i]]
        tail[i] = 0
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                reader = a.rd_op[r]
                to = home[a.group[reader]]
                behind = tail[reader] + a.ticks[reader, to]
                if to != d:
                    behind += transfer_ticks(a, t, d, to)
                tail[i] = max(tail[i], behind)
