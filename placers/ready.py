"""Queues of ready ops: which of them a free device starts."""

from baechi.cost.jit import leaf
from baechi.cost.problem import Arrays
from baechi.placers.arrival import arrivals, earliest
from baechi.placers.listing import NOW, State, fits, may_run
from baechi.sim.heap import heap_pop, heap_push

__all__ = ["announce", "awake_candidate", "candidate", "later"]


@leaf
def announce(a: Arrays, i: int, s: State) -> None:
    """Queue a newly ready op at every device that it may run on."""
    arrivals(a, i, s)
    latest = 0
    for p in range(len(a.cap)):
        if may_run(a, i, p, s):
            later(s, p, s.arrival[p], a.rank[i])
            latest = max(latest, s.arrival[p])
    if len(s.urgent) > 2:
        heap_push(s.urgent, latest, a.rank[i])


@leaf
def later(s: State, p: int, start: int, rank: int) -> None:
    """Queue a ready op at device `p`, which sorts it in when it next looks for one: most are placed elsewhere by then."""
    at = s.due[p, 0, 0] + s.due[p, 0, 1] + 1
    s.due[p, at, 0], s.due[p, at, 1] = start, rank
    s.due[p, 0, 1] += 1


@leaf
def _sort_in(a: Arrays, p: int, s: State) -> None:
    """Put what is queued behind the heap of device `p` where it belongs, but for what can no longer run there."""
    now, more = s.tally[NOW], s.due[p, 0, 1]
    first = s.due[p, 0, 0] + 1
    s.due[p, 0, 1] = 0
    for k in range(first, first + more):
        start, rank = s.due[p, k, 0], s.due[p, k, 1]
        if not may_run(a, a.order[rank], p, s):
            continue
        if start <= now:
            heap_push(s.open[p], rank, rank)
        else:
            heap_push(s.due[p], start, rank)


@leaf
def candidate(a: Arrays, p: int, s: State) -> int:
    """The ready op that a free device would start now, or -1."""
    now = s.tally[NOW]
    _sort_in(a, p, s)
    while s.due[p, 0, 0] > 0 and s.due[p, 1, 0] <= now:
        rank = heap_pop(s.due[p])
        if may_run(a, a.order[rank], p, s):
            heap_push(s.open[p], rank, rank)
    while s.open[p, 0, 0] > 0:
        i = a.order[s.open[p, 1, 1]]
        if may_run(a, i, p, s):
            start = earliest(a, i, p, s, False)
            if start <= now and fits(a, i, p, s):
                return int(i)
            if start > now:
                heap_push(s.due[p], start, a.rank[i])
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
        i = a.order[s.urgent[1, 1]]
        if s.device[i] < 0:
            latest = 0
            for q in range(len(a.cap)):
                if may_run(a, i, q, s):
                    latest = max(latest, earliest(a, i, q, s, False))
            if latest <= now:
                return int(i) if may_run(a, i, p, s) and fits(a, i, p, s) else -1
            heap_pop(s.urgent)
            heap_push(s.urgent, latest, a.rank[i])
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
