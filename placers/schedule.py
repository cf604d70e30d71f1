"""The compiled list scheduler behind m-ETF and m-SCT.

An op is ready when all that it reads has been made. At each moment, of all pairs of a ready op and
a free device, the one that can start first is started; ties go to the op that comes first in
topological order, then to the device that comes first. Inputs are fetched when the op is placed,
one after the other on the copy lanes.

What is there from the start and costs nothing, such as a parameter or a view of one, could start
anywhere at once and would all go to the first device. It follows: it is placed with the first op
that reads it, before that op.

A pair's earliest start only grows while lanes fill up, except when a copy of an input arrives for
another op. So pairs wait in heaps under the start that they had when they were last looked at, and
are looked at again when they come to the top.
"""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import PARALLEL, SEQUENTIAL, TOKEN, Arrays, Ints
from baechi.placers.ledger import Ledger, commit, finish, new_ledger, overflow
from baechi.sim.heap import heap_pop, heap_push
from baechi.sim.transfers import transfer_ticks

__all__ = ["ListSchedule", "list_schedule"]

_NOW, _PLACED, _SENT, _FORCED = range(4)
_NEVER = np.int64(np.iinfo(np.int64).max)


class ListSchedule(NamedTuple):
    """What came out.

    Attributes:
        placed: ops that were placed; fewer than all at a dead end.
        forced: ops that were placed over a cap.
        device, sequence: as in `Schedule`.
        sent: (transfers, 2) tensor and destination, in the order of the lanes.
    """

    placed: int
    forced: int
    device: Ints
    sequence: Ints
    sent: Ints


class _State(NamedTuple):
    books: Ledger
    group_persistent: Ints
    device: Ints
    sequence: Ints
    sent: Ints
    waits: Ints
    end: Ints
    running: Ints
    free_at: Ints
    lane: Ints
    due: Ints
    open: Ints
    stuck: Ints
    stuck_count: Ints
    awake: Ints
    urgent: Ints
    follows: Ints
    stack: Ints
    tally: Ints


@kernel
def list_schedule(a: Arrays, child: Ints, home: Ints, soft: bool) -> ListSchedule:
    """Place all ops; O((ops + reads) x devices x log(ops)) where lanes are free, more where they are not.

    Args:
        child: (ops,) favourite child of each op or -1; all -1 is m-ETF.
        home: (groups,) device that a group is bound to, or -1.
        soft: at a dead end, place the op that goes least over a cap, and go on.
    """
    s = _begin(a, home)
    _loop(a, child, soft, s)
    placed, sent = s.tally[_PLACED], s.tally[_SENT]
    return ListSchedule(placed, s.tally[_FORCED], s.device, s.sequence[:placed], s.sent[:sent])


@maker
def _begin(a: Arrays, home: Ints) -> _State:
    ops, devices, reads = len(a.rank), len(a.cap), len(a.in_t)
    persistent = np.zeros(len(a.group_ptr) - 1, np.int64)
    for i in range(ops):
        persistent[a.group[i]] += a.persistent[i]
    due = np.empty((devices, ops + reads + 2, 3), np.int64)
    ready = np.empty((devices, ops + reads + 2, 3), np.int64)
    urgent = np.empty((ops + devices * reads + 2, 3), np.int64)
    due[:, 0, 0] = 0
    ready[:, 0, 0] = 0
    urgent[0, 0] = 0
    return _State(
        new_ledger(a, home, persistent),
        persistent,
        np.full(ops, -1, np.int64),
        np.empty(ops, np.int64),
        np.empty((devices * reads, 2), np.int64),
        a.in_ptr[1:] - a.in_ptr[:-1],
        np.zeros(ops, np.int64),
        np.full(devices, -1, np.int64),
        np.zeros(devices, np.int64),
        np.zeros(2 * devices, np.int64),
        due,
        ready,
        np.empty((devices, ops + reads + 1), np.int64),
        np.zeros(devices, np.int64),
        np.full(devices, -1, np.int64),
        urgent,
        _followers(a),
        np.empty(ops + reads + 1, np.int64),
        np.zeros(4, np.int64),
    )


@maker
def _followers(a: Arrays) -> Ints:
    """1 for ops that follow their first reader: free ones without inputs, and views of what they make."""
    ops = len(a.rank)
    order = np.empty(ops, np.int64)
    for i in range(ops):
        order[a.rank[i]] = i
    follows = np.ones(ops, np.int64)
    for i in order:
        if a.in_ptr[i] == a.in_ptr[i + 1]:
            for d in range(len(a.cap)):
                if a.ticks[i, d] > 0:
                    follows[i] = 0
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            if follows[a.t_op[a.in_t[k]]] == 0:
                follows[i] = 0
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            if a.in_ptr[i] < a.in_ptr[i + 1] and a.t_base[t] < 0 and a.t_ticks[t] != TOKEN:
                follows[i] = 0
    for k in range(ops - 1, -1, -1):
        i = order[k]
        read = False
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                read = read or follows[a.rd_op[r]] == 0 or follows[a.rd_op[r]] == 2
        if follows[i] == 1:
            follows[i] = 2 if read else 0
    return follows // 2


@leaf
def _loop(a: Arrays, child: Ints, soft: bool, s: _State) -> None:
    ops, devices = len(a.rank), len(a.cap)
    for i in range(ops):
        if s.follows[i]:
            for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
                for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                    s.waits[a.rd_op[k]] -= 1
    for i in range(ops):
        if s.waits[i] == 0 and not s.follows[i]:
            _announce(a, i, s)
    while True:
        while _start_best(a, s):
            pass
        if s.tally[_PLACED] == ops:
            return
        moment = _next_moment(a, s)
        if moment == _NEVER:
            if not (soft and _force(a, s)):
                return
            continue
        s.tally[_NOW] = moment
        for p in range(devices):
            if s.running[p] >= 0 and s.free_at[p] == moment:
                _finish(a, child, p, s)


@leaf
def _lane_in(a: Arrays, p: int) -> int:
    return p if a.contention == SEQUENTIAL else len(a.cap) + p


@leaf
def _earliest(a: Arrays, i: int, p: int, s: _State, fetch: bool) -> int:
    """When all inputs of op `i` can be on device `p`; with `fetch`, they are sent now."""
    latest = np.int64(0)
    lane_in = _lane_in(a, p)
    taken = s.lane[lane_in]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        source = _place_of(a, a.t_op[t], p, s)
        there = s.end[a.t_op[t]]
        if source != p and a.t_ticks[t] != TOKEN:
            if s.books.arrived[t, p] >= 0:
                there = s.books.arrived[t, p]
            else:
                if a.contention != PARALLEL:
                    there = max(there, taken, s.lane[source])
                there += transfer_ticks(a, t, source, p)
                taken = there
                if fetch:
                    s.books.arrived[t, p] = there
                    if a.contention != PARALLEL:
                        s.lane[source] = s.lane[lane_in] = there
                    sent = s.tally[_SENT]
                    s.sent[sent, 0], s.sent[sent, 1] = t, p
                    s.tally[_SENT] = sent + 1
        latest = max(latest, there)
    return int(latest)


@leaf
def _place_of(a: Arrays, i: int, p: int, s: _State) -> int:
    """Device of op `i`; one that follows is with its group, or will come to `p`."""
    if s.device[i] >= 0:
        return int(s.device[i])
    home = s.books.home[a.group[i]]
    return int(home if home >= 0 else p)


@leaf
def _collect(a: Arrays, i: int, s: _State) -> int:
    """Put the ops that would follow op `i` on the stack, inputs first; returns how many."""
    count = 0
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        j = a.t_op[a.in_t[k]]
        if s.device[j] < 0 and not _is_among(s.stack, 0, count, j):
            s.stack[count] = j
            count += 1
    done = 0
    while done < count:
        j = s.stack[done]
        done += 1
        for k in range(a.in_ptr[j], a.in_ptr[j + 1]):
            above = a.t_op[a.in_t[k]]
            if s.device[above] < 0 and not _is_among(s.stack, 0, count, above):
                s.stack[count] = above
                count += 1
    for k in range(1, count):  # by insertion: the few there are come in topological order
        j = s.stack[k]
        at = k
        while at > 0 and a.rank[s.stack[at - 1]] > a.rank[j]:
            s.stack[at] = s.stack[at - 1]
            at -= 1
        s.stack[at] = j
    return count


@leaf
def _is_among(stack: Ints, first: int, count: int, j: int) -> bool:
    for k in range(first, count):
        if stack[k] == j:
            return True
    return False


@leaf
def _overflow(a: Arrays, i: int, p: int, s: _State) -> int:
    """Bytes by which op `i` and what would follow it exceed the cap of device `p`; at most 0 if they fit."""
    count = _collect(a, i, s)
    followers = 0
    for k in range(count):
        j = s.stack[k]
        if _place_of(a, j, p, s) != p:
            continue
        for t in range(a.out_ptr[j], a.out_ptr[j + 1]):
            followers += a.t_size[t]
        g = a.group[j]
        counted = s.books.home[g] >= 0 or g == a.group[i]
        for before in range(k):
            counted = counted or a.group[s.stack[before]] == g
        if not counted:
            followers += s.group_persistent[g]
    return followers + overflow(a, s.books, s.device, s.group_persistent, i, p)


@leaf
def _may_run(a: Arrays, i: int, p: int, s: _State) -> bool:
    """Whether op `i` is still to be placed and its group leaves it device `p`."""
    home = s.books.home[a.group[i]]
    return bool(s.device[i] < 0 and (home < 0 or home == p))


@leaf
def _announce(a: Arrays, i: int, s: _State) -> None:
    """Queue a newly ready op at every device that it may run on."""
    latest = np.int64(0)
    for p in range(len(a.cap)):
        if _may_run(a, i, p, s):
            start = _earliest(a, i, p, s, False)
            heap_push(s.due[p], start, a.rank[i], i)
            latest = max(latest, start)
    heap_push(s.urgent, latest, a.rank[i], i)


@leaf
def _fits(a: Arrays, i: int, p: int, s: _State) -> bool:
    return _overflow(a, i, p, s) <= 0


@leaf
def _candidate(a: Arrays, p: int, s: _State) -> int:
    """The ready op that a free device would start now, or -1."""
    now = s.tally[_NOW]
    while s.due[p, 0, 0] > 0 and s.due[p, 1, 0] <= now:
        i = heap_pop(s.due[p])
        if _may_run(a, i, p, s):
            heap_push(s.open[p], a.rank[i], 0, i)
    while s.open[p, 0, 0] > 0:
        i = s.open[p, 1, 2]
        if _may_run(a, i, p, s):
            start = _earliest(a, i, p, s, False)
            if start <= now and _fits(a, i, p, s):
                return int(i)
            if start > now:
                heap_push(s.due[p], start, a.rank[i], i)
            else:
                s.stuck[p, s.stuck_count[p]] = i
                s.stuck_count[p] += 1
        heap_pop(s.open[p])
    return -1


@leaf
def _urgent(a: Arrays, p: int, s: _State) -> int:
    """The op that could have started on any device by now and fits on `p`, or -1."""
    now = s.tally[_NOW]
    while s.urgent[0, 0] > 0 and s.urgent[1, 0] <= now:
        i = s.urgent[1, 2]
        if s.device[i] < 0:
            latest = np.int64(0)
            for q in range(len(a.cap)):
                if _may_run(a, i, q, s):
                    latest = max(latest, _earliest(a, i, q, s, False))
            if latest <= now:
                return int(i) if _may_run(a, i, p, s) and _fits(a, i, p, s) else -1
            heap_pop(s.urgent)
            heap_push(s.urgent, latest, a.rank[i], i)
        else:
            heap_pop(s.urgent)
    return -1


@leaf
def _awake_candidate(a: Arrays, p: int, s: _State) -> int:
    """What a device that awaits a favourite child starts now: an urgent op, else the child, else -1."""
    i = s.awake[p]
    if not (_may_run(a, i, p, s) and _fits(a, i, p, s)):
        s.awake[p] = -1
        return _candidate(a, p, s)
    urgent = _urgent(a, p, s)
    if urgent >= 0:
        return urgent
    return int(i) if _earliest(a, i, p, s, False) <= s.tally[_NOW] else -1


@leaf
def _start_best(a: Arrays, s: _State) -> bool:
    """Start, of what the free devices could start now, what comes first; false when there is nothing."""
    best, where, since = -1, -1, np.int64(0)
    for p in range(len(a.cap)):
        if s.running[p] >= 0:
            continue
        i = _awake_candidate(a, p, s) if s.awake[p] >= 0 else _candidate(a, p, s)
        if i < 0:
            continue
        start = max(s.free_at[p], _earliest(a, i, p, s, False))
        if best < 0 or start < since or (start == since and a.rank[i] < a.rank[best]):
            best, where, since = i, p, start
    if best < 0:
        return False
    _start(a, best, where, s)
    return True


@leaf
def _start(a: Arrays, i: int, p: int, s: _State) -> None:
    for k in range(_collect(a, i, s)):
        j = s.stack[k]
        _enter(a, j, _place_of(a, j, p, s), s)
        finish(a, s.books, s.device, j)
    sent = s.tally[_SENT]
    _earliest(a, i, p, s, True)
    _enter(a, i, p, s)
    s.running[p] = i
    s.awake[p] = -1
    s.free_at[p] = s.end[i] = s.tally[_NOW] + a.ticks[i, p]
    for x in range(sent, s.tally[_SENT]):
        t = s.sent[x, 0]
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[k]
            if s.waits[reader] == 0 and _may_run(a, reader, p, s):
                start = _earliest(a, reader, p, s, False)
                heap_push(s.due[p], start, a.rank[reader], reader)
                heap_push(s.urgent, start, a.rank[reader], reader)


@leaf
def _enter(a: Arrays, i: int, p: int, s: _State) -> None:
    commit(a, s.books, s.device, s.group_persistent, i, p)
    s.sequence[s.tally[_PLACED]] = i
    s.tally[_PLACED] += 1


@leaf
def _finish(a: Arrays, child: Ints, p: int, s: _State) -> None:
    i = s.running[p]
    s.running[p] = -1
    finish(a, s.books, s.device, i)
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[k]
            s.waits[reader] -= 1
            if s.waits[reader] == 0:
                _announce(a, reader, s)
    for q in range(len(a.cap)):
        for k in range(s.stuck_count[q]):
            heap_push(s.due[q], s.tally[_NOW], a.rank[s.stuck[q, k]], s.stuck[q, k])
        s.stuck_count[q] = 0
    favourite = child[i]
    if favourite >= 0 and s.waits[favourite] == 0 and _may_run(a, favourite, p, s) and _fits(a, favourite, p, s):
        here = _earliest(a, favourite, p, s, False)
        for q in range(len(a.cap)):
            if q != p and _may_run(a, favourite, q, s):
                if max(s.free_at[q], _earliest(a, favourite, q, s, False)) < max(s.free_at[p], here):
                    return
        s.awake[p] = favourite


@leaf
def _next_moment(a: Arrays, s: _State) -> int:
    """When something can happen next: an op ends, or what a free device waits for has arrived."""
    now = s.tally[_NOW]
    moment = _NEVER
    awake = False
    for p in range(len(a.cap)):
        if s.running[p] >= 0:
            moment = min(moment, s.free_at[p])
        elif s.awake[p] >= 0:
            awake = True
            moment = min(moment, max(now + 1, _earliest(a, s.awake[p], p, s, False)))
        else:
            while s.due[p, 0, 0] > 0:
                i = s.due[p, 1, 2]
                if not _may_run(a, i, p, s):
                    heap_pop(s.due[p])
                    continue
                start = _earliest(a, i, p, s, False)
                if now < start <= s.due[p, 1, 0]:
                    moment = min(moment, start)
                    break
                heap_pop(s.due[p])
                if start > now:
                    heap_push(s.due[p], start, a.rank[i], i)
    if awake and s.urgent[0, 0] > 0 and s.urgent[1, 0] > now:
        moment = min(moment, s.urgent[1, 0])
    return int(moment)


@leaf
def _force(a: Arrays, s: _State) -> bool:
    """At a dead end, start the ready op that goes least over a cap."""
    best, where, least = -1, -1, _NEVER
    for p in range(len(a.cap)):
        for k in range(s.stuck_count[p]):
            i = s.stuck[p, k]
            if _may_run(a, i, p, s):
                over = _overflow(a, i, p, s)
                if over < least or (over == least and a.rank[i] < a.rank[best]):
                    best, where, least = i, p, over
    if best < 0:
        return False
    s.tally[_FORCED] += 1
    _start(a, best, where, s)
    return True
