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

from baechi.cost.jit import NONE, kernel, leaf
from baechi.cost.problem import Arrays, Ints
from baechi.placers.arrival import earliest
from baechi.placers.ledger import commit, finish
from baechi.placers.listing import (
    ENDING,
    FORCED,
    NOW,
    PLACED,
    SENT,
    State,
    begin,
    collect,
    fits,
    has_room,
    may_run,
    over_cap,
    place_of,
    roomy,
)
from baechi.placers.ready import announce, awake_candidate, candidate, later
from baechi.sim.heap import heap_pop, heap_push

__all__ = ["ListSchedule", "list_schedule"]

_NEVER = 2**63 - 1
_LOOKED_AT = 64  # ops for each device


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


@kernel
def list_schedule(a: Arrays, child: Ints, home: Ints, soft: bool) -> ListSchedule:
    """Place all ops; O((ops + reads) x devices x log(ops)) where lanes are free, more where they are not.

    Args:
        child: (ops,) favourite child of each op or -1; all -1 is m-ETF.
        home: (groups,) device that a group is bound to, or -1.
        soft: at a dead end, place the op that goes least over a cap, and go on.
    """
    s = begin(a, home, bool((child >= 0).any()))
    _wait_for_no_follower(a, s)
    s = roomy(s, int((s.waits == 0).sum()))
    for i in range(len(a.rank)):
        if s.waits[i] == 0 and not s.follows[i]:
            announce(a, i, s)
    while True:
        more = _go_on(a, child, soft, s)
        if more == 0:
            break
        s = roomy(s, more)
    placed, sent = s.tally[PLACED], s.tally[SENT]
    return ListSchedule(placed, s.tally[FORCED], s.device, s.sequence[:placed], s.sent[:sent])


@leaf
def _wait_for_no_follower(a: Arrays, s: State) -> None:
    for i in range(len(a.rank)):
        if s.follows[i]:
            for k in range(a.rd_ptr[a.out_ptr[i]], a.rd_ptr[a.out_ptr[i + 1]]):
                s.waits[a.rd_op[k]] -= 1


@leaf
def _go_on(a: Arrays, child: Ints, soft: bool, s: State) -> int:
    """Place ops to the end, and return 0, or as far as there is room, and return how much more it takes."""
    while True:
        while s.tally[ENDING] > 0:
            p = s.tally[ENDING] - 1
            if s.running[p] >= 0 and s.free_at[p] == s.tally[NOW]:
                more = _woken(a, s.running[p])
                if not has_room(s, more):
                    return more
                _finish(a, child, p, s)
            s.tally[ENDING] = p + 2 if p + 1 < len(a.cap) else 0
        i, p = _best(a, s)
        forced = 0
        if i < 0 and s.tally[PLACED] < len(a.rank):
            moment = _next_moment(a, s)
            if moment < _NEVER:
                s.tally[NOW] = moment
                s.tally[ENDING] = 1
                continue
            if soft:
                i, p = _least_over(a, s)
                forced = 1
        if i < 0:
            return 0
        more = _moved(a, i, s)
        if not has_room(s, more):
            return more
        s.tally[FORCED] += forced
        _start(a, i, p, s)


@leaf
def _woken(a: Arrays, i: int) -> int:
    """How many ops may become ready, at most, when op `i` ends."""
    return int(a.rd_ptr[a.out_ptr[i + 1]] - a.rd_ptr[a.out_ptr[i]])


@leaf
def _moved(a: Arrays, i: int, s: State) -> int:
    """How many ready ops, at most, may start sooner where inputs of op `i` and of what follows it are sent."""
    readers = 0
    for k in range(collect(a, i, s) + 1):
        j = i if k == 0 else s.stack[k - 1]
        for r in range(a.in_ptr[j], a.in_ptr[j + 1]):
            t = a.in_t[r]
            readers += a.rd_ptr[t + 1] - a.rd_ptr[t]
    return int(readers)


@leaf
def _best(a: Arrays, s: State) -> tuple[int, int]:
    """Of what the free devices could start now, what comes first, and where; -1 when there is nothing."""
    best, where, since = NONE, NONE, 0
    for p in range(len(a.cap)):
        if s.running[p] >= 0:
            continue
        i = awake_candidate(a, p, s) if s.awake[p] >= 0 else candidate(a, p, s)
        if i < 0:
            continue
        start = max(s.free_at[p], earliest(a, i, p, s, False))
        if best < 0 or start < since or (start == since and a.rank[i] < a.rank[best]):
            best, where, since = i, p, start
    return best, where


@leaf
def _start(a: Arrays, i: int, p: int, s: State) -> None:
    sent = s.tally[SENT]
    for k in range(collect(a, i, s)):
        j = s.stack[k]
        q = place_of(a, j, p, s)
        s.end[j] = earliest(a, j, q, s, True)
        _enter(a, j, q, s)
        finish(a, s.books, s.device, j)
    start = max(s.tally[NOW], earliest(a, i, p, s, True))
    _enter(a, i, p, s)
    s.running[p] = i
    s.awake[p] = -1
    s.free_at[p] = s.end[i] = start + a.ticks[i, p]
    for x in range(sent, s.tally[SENT]):
        t, q = s.sent[x, 0], s.sent[x, 1]
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[k]
            if s.waits[reader] == 0 and not s.follows[reader] and may_run(a, reader, q, s):
                sooner = earliest(a, reader, q, s, False)
                later(s, q, sooner, a.rank[reader])
                if len(s.urgent) > 2:
                    heap_push(s.urgent, sooner, a.rank[reader])


@leaf
def _enter(a: Arrays, i: int, p: int, s: State) -> None:
    commit(a, s.books, s.device, s.group_persistent, i, p)
    s.sequence[s.tally[PLACED]] = i
    s.tally[PLACED] += 1


@leaf
def _finish(a: Arrays, child: Ints, p: int, s: State) -> None:
    i = s.running[p]
    s.running[p] = -1
    finish(a, s.books, s.device, i)
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[k]
            s.waits[reader] -= 1
            if s.waits[reader] == 0:
                announce(a, reader, s)
    for q in range(len(a.cap)):
        if s.books.eased[q] == 0 or s.books.persistent[q] + s.books.peak[q] > a.cap[q]:
            continue  # nothing else fits there now, or nothing ever will
        s.books.eased[q] = 0
        for k in range(s.stuck_count[q]):
            later(s, q, s.tally[NOW], a.rank[s.stuck[q, k]])
        s.stuck_count[q] = 0
    favourite = child[i]
    if favourite >= 0 and s.waits[favourite] == 0 and may_run(a, favourite, p, s) and fits(a, favourite, p, s):
        here = earliest(a, favourite, p, s, False)
        for q in range(len(a.cap)):
            if q == p or not may_run(a, favourite, q, s):
                continue
            if max(s.free_at[q], earliest(a, favourite, q, s, False)) < max(s.free_at[p], here):
                return
        s.awake[p] = favourite


@leaf
def _next_moment(a: Arrays, s: State) -> int:
    """When something can happen next: an op ends, or what a free device waits for has arrived."""
    now = s.tally[NOW]
    moment = _NEVER
    awake = False
    for p in range(len(a.cap)):
        if s.running[p] >= 0:
            moment = min(moment, s.free_at[p])
        elif s.awake[p] >= 0:
            awake = True
            moment = min(moment, max(now + 1, earliest(a, s.awake[p], p, s, False)))
    for p in range(len(a.cap)):
        if s.running[p] >= 0 or s.awake[p] >= 0:
            continue
        while s.due[p, 0, 0] > 0 and s.due[p, 1, 0] < moment:  # nothing starts sooner than it is due
            i = a.order[s.due[p, 1, 1]]
            if not may_run(a, i, p, s):
                heap_pop(s.due[p])
                continue
            start = earliest(a, i, p, s, False)
            if now < start <= s.due[p, 1, 0]:
                moment = start
                break
            heap_pop(s.due[p])
            if start > now:
                heap_push(s.due[p], start, a.rank[i])
    if awake and s.urgent[0, 0] > 0 and s.urgent[1, 0] > now:
        moment = min(moment, s.urgent[1, 0])
    return int(moment)


@leaf
def _least_over(a: Arrays, s: State) -> tuple[int, int]:
    """At a dead end, of some ready ops that fit nowhere, the one that goes least over a cap, and where; -1: none."""
    best, where, least = NONE, NONE, _NEVER
    for p in range(len(a.cap)):
        looked = 0
        for k in range(s.stuck_count[p] - 1, -1, -1):
            i = s.stuck[p, k]
            if may_run(a, i, p, s):
                over = over_cap(a, i, p, s)
                if over < least or (over == least and a.rank[i] < a.rank[best]):
                    best, where, least = i, p, over
                looked += 1
                if looked == _LOOKED_AT:
                    break
    return best, where
