"""Queues of ready ops: which of them a free device starts."""

from baechi.cost.jit import leaf
from baechi.cost.problem import Arrays
from baechi.placers.listing import NOW, State, earliest, fits, may_run
from baechi.sim.heap import heap_pop, heap_push

__all__ = ["announce", "awake_candidate", "candidate"]


@leaf
def announce(a: Arrays, i: int, s: State) -> None:
    """Queue a newly ready op at every device that it may run on."""
    latest = 0
    for p in range(len(a.cap)):
        if may_run(a, i, p, s):
            start = earliest(a, i, p, s, False)
            if start <= s.tally[NOW]:
                heap_push(s.open[p], a.rank[i], 0, i)
            else:
                heap_push(s.due[p], start, a.rank[i], i)
            latest = max(latest, start)
    if len(s.urgent) > 2:
        heap_push(s.urgent, latest, a.rank[i], i)


@leaf
def candidate(a: Arrays, p: int, s: State) -> int:
    """The ready op that a free device would start now, or -1."""
    now = s.tally[NOW]
    while s.due[p, 0, 0] > 0 and s.due[p, 1, 0] <= now:
        i = heap_pop(s.due[p])
        if may_run(a, i, p, s):
            heap_push(s.open[p], a.rank[i], 0, i)
    while s.open[p, 0, 0] > 0:
        i = s.open[p, 1, 2]
        if may_run(a, i, p, s):
            start = earliest(a, i, p, s, False)
            if start <= now and fits(a, i, p, s):
                return int(i)
            if start > now:
                heap_push(s.due[p], start, a.rank[i], i)
            else:
                s.stuck[p, s.stuck_count[p]] = i
                s.stuck_count[p] += 1
        heap_pop(s.open[p])
    return -1


@leaf
def _urgent(a: Arrays, p: int, s: State) -> int:
    """The op that could have started on any device by now and fits on `p`, or -1."""
    now = s.tally[NOW]
    while s.urgent[0, 0] > 0 and s.urgent[1, 0] <= now:
        i = s.urgent[1, 2]
        if s.device[i] < 0:
            latest = 0
            for q in range(len(a.cap)):
                if may_run(a, i, q, s):
                    latest = max(latest, earliest(a, i, q, s, False))
            if latest <= now:
                return int(i) if may_run(a, i, p, s) and fits(a, i, p, s) else -1
            heap_pop(s.urgent)
            heap_push(s.urgent, latest, a.rank[i], i)
        else:
            heap_pop(s.urgent)
    return -1


@leaf
def awake_candidate(a: Arrays, p: int, s: State) -> int:
    """What a device that awaits a favourite child starts now: an urgent op, else the child, else -1."""
    i = s.awake[p]
    if not (may_run(a, i, p, s) and fits(a, i, p, s)):
        s.awake[p] = -1
        return candidate(a, p, s)
    urgent = _urgent(a, p, s)
    if urgent >= 0:
        return urgent
    return int(i) if earliest(a, i, p, s, False) <= s.tally[NOW] else -1
