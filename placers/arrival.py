"""When what an op reads can be on a device."""

from baechi.cost.jit import NONE, leaf
from baechi.cost.problem import PARALLEL, SEQUENTIAL, TOKEN, Arrays
from baechi.placers.ledger import add_copy, copy_at
from baechi.placers.listing import SENT, State, place_of
from baechi.sim.transfers import transfer_ticks

__all__ = ["arrivals", "earliest"]


@leaf
def _lane_in(a: Arrays, p: int) -> int:
    return p if a.contention == SEQUENTIAL else len(a.cap) + p


@leaf
def earliest(a: Arrays, i: int, p: int, s: State, fetch: bool) -> int:
    """When all inputs of op `i` can be on device `p`; with `fetch`, they are sent now."""
    latest = 0
    lane_in = _lane_in(a, p)
    taken = s.lane[lane_in]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        source = place_of(a, a.t_op[t], p, s)
        there = s.end[a.t_op[t]]
        if source != p and a.t_ticks[t] != TOKEN:
            copy = copy_at(a, s.books, t, p)
            if copy >= 0:
                there = s.books.copy_time[copy]
            else:
                if a.contention != PARALLEL:
                    there = max(there, taken, s.lane[source])
                there += transfer_ticks(a, t, source, p)
                taken = there * a.pays[p]
                if fetch:
                    add_copy(a, s.books, t, p, there)
                    if a.contention != PARALLEL:
                        s.lane[source], s.lane[lane_in] = there * a.pays[source], there * a.pays[p]
                    sent = s.tally[SENT]
                    s.sent[sent, 0], s.sent[sent, 1] = t, p
                    s.tally[SENT] = sent + 1
        latest = max(latest, there)
    return int(latest)


@leaf
def arrivals(a: Arrays, i: int, s: State) -> None:
    """Fill `State.arrival` with `earliest` of op `i` on each device, each input looked at once."""
    devices = len(a.cap)
    for p in range(devices):
        s.arrival[p] = 0
        s.taken[p] = s.lane[_lane_in(a, p)]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        made, source = s.end[a.t_op[t]], place_of(a, a.t_op[t], NONE, s)
        if source < 0 or a.t_ticks[t] == TOKEN:
            for p in range(devices):
                s.arrival[p] = max(s.arrival[p], made)
            continue
        _copied(a, t, s)
        leaves = made if a.contention == PARALLEL else max(made, s.lane[source])
        for p in range(devices):
            there = made
            if s.copied[p] >= 0:
                there = s.copied[p]
            elif p != source:
                there = leaves if a.contention == PARALLEL else max(leaves, s.taken[p])
                there += transfer_ticks(a, t, source, p)
                s.taken[p] = there * a.pays[p]
            s.arrival[p] = max(s.arrival[p], there)


@leaf
def _copied(a: Arrays, t: int, s: State) -> None:
    """Fill `State.copied` with when a copy of tensor `t` is on each device, -1 where there is none."""
    devices = len(a.cap)
    for p in range(devices):
        s.copied[p] = -1
    for k in range(s.books.copy_ptr[t], s.books.copy_ptr[t + 1]):
        if s.books.copy_device[k] >= 0:
            s.copied[s.books.copy_device[k]] = s.books.copy_time[k]
