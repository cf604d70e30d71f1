"""The state of the list scheduler, and what it asks of it: whether an op can run on a device."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.placers.ledger import Ledger, new_ledger, overflow

__all__ = [
    "ENDING",
    "FORCED",
    "NOW",
    "PLACED",
    "ROOM",
    "SENT",
    "State",
    "begin",
    "collect",
    "fits",
    "has_room",
    "may_run",
    "over_cap",
    "place_of",
    "roomy",
]

_FIRST_ROOM = 1024

NOW, PLACED, SENT, FORCED, ENDING, ROOM = range(6)
"""Where `State.tally` counts what; `ENDING` is 0, or 1 more than the next device to look for an op that ends,
`ROOM` how many entries surely fit into every queue yet."""


class State(NamedTuple):
    """All that changes while ops are listed.

    Attributes:
        books: memory.
        group_persistent: (groups,) bytes that persist.
        device, sequence, sent: as in `ListSchedule`.
        waits: (ops,) inputs that are not made yet.
        end: (ops,) when a placed op ends.
        running, free_at: (devices,) the op that runs, or -1, and when the device is free.
        lane: (2 devices,) when each copy lane is free.
        due, open: a heap for each device: ready ops by the start they had when last looked at, and
            those that could start now, by topological order. Behind a heap of `due`, of which row 0 says
            how many, those that came since the device last looked for one.
        stuck, stuck_count: ready ops that did not fit on a device since an op last ended.
        awake: (devices,) the favourite child that a device awaits, or -1.
        urgent: a heap of ready ops by the time from which they could start anywhere; without room
            when no op has a favourite child.
        arrival, taken, copied: (devices,) room for `arrivals`.
        follows: (ops,) 1 for ops that are placed with their first reader.
        stack: room for `collect`.
        tally: counters.
    """

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
    arrival: Ints
    taken: Ints
    copied: Ints
    follows: Ints
    stack: Ints
    tally: Ints


@maker
def begin(a: Arrays, home: Ints, waits: bool) -> State:
    """Before the first op is placed; `waits` says whether a device may ever wait for a favourite child."""
    ops, devices, reads = len(a.rank), len(a.cap), len(a.in_t)
    persistent, left = np.zeros(len(a.group_ptr) - 1, np.int64), np.empty(ops, np.int64)
    for i in range(ops):
        persistent[a.group[i]] += a.persistent[i]
        left[i] = a.in_ptr[i + 1] - a.in_ptr[i]
    due = np.empty((devices, _FIRST_ROOM, 2), np.int64)
    ready = np.empty((devices, _FIRST_ROOM, 2), np.int64)
    urgent = np.empty((ops + devices * reads + 2 if waits else 2, 2), np.int64)
    for p in range(devices):
        due[p, 0, 0] = due[p, 0, 1] = ready[p, 0, 0] = 0
    urgent[0, 0] = 0
    books = new_ledger(a, home, persistent)
    return State(
        books,
        persistent,
        np.full(ops, -1, np.int64),
        np.empty(ops, np.int64),
        np.empty((len(books.copy_time), 2), np.int64),
        left,
        np.zeros(ops, np.int64),
        np.full(devices, -1, np.int64),
        np.zeros(devices, np.int64),
        np.zeros(2 * devices, np.int64),
        due,
        ready,
        np.empty((devices, _FIRST_ROOM), np.int64),
        np.zeros(devices, np.int64),
        np.full(devices, -1, np.int64),
        urgent,
        np.zeros(devices, np.int64),
        np.zeros(devices, np.int64),
        np.zeros(devices, np.int64),
        _followers(a),
        np.empty(ops + reads + 1, np.int64),
        np.zeros(6, np.int64),
    )


@leaf
def has_room(s: State, more: int) -> bool:
    """Whether `more` entries fit into the queues of every device; then they are counted as entered."""
    if s.tally[ROOM] >= more:
        s.tally[ROOM] -= more
        return True
    most = 0
    for p in range(len(s.running)):
        most = max(most, s.due[p, 0, 0] + s.due[p, 0, 1] + s.open[p, 0, 0] + s.stuck_count[p])
    s.tally[ROOM] = s.due.shape[1] - most - more - 2
    return bool(s.tally[ROOM] >= 0)


@maker
def roomy(s: State, more: int) -> State:
    """The state with room for `more` entries in the queues of each device."""
    devices = len(s.running)
    room = 2 * (s.due.shape[1] + more)
    due = np.empty((devices, room, 2), np.int64)
    ready = np.empty((devices, room, 2), np.int64)
    stuck = np.empty((devices, room), np.int64)
    for p in range(devices):  # element by element: to check the shapes of what is copied takes seconds to compile
        for k in range(s.due[p, 0, 0] + s.due[p, 0, 1] + 1):
            due[p, k, 0], due[p, k, 1] = s.due[p, k, 0], s.due[p, k, 1]
        for k in range(s.open[p, 0, 0] + 1):
            ready[p, k, 0], ready[p, k, 1] = s.open[p, k, 0], s.open[p, k, 1]
        for k in range(s.stuck_count[p]):
            stuck[p, k] = s.stuck[p, k]
    return State(
        s.books,
        s.group_persistent,
        s.device,
        s.sequence,
        s.sent,
        s.waits,
        s.end,
        s.running,
        s.free_at,
        s.lane,
        due,
        ready,
        stuck,
        s.stuck_count,
        s.awake,
        s.urgent,
        s.arrival,
        s.taken,
        s.copied,
        s.follows,
        s.stack,
        s.tally,
    )


@maker
def _followers(a: Arrays) -> Ints:
    """1 for ops that follow their first reader: free ones without inputs, and views of what they make."""
    ops = len(a.rank)
    follows = np.ones(ops, np.int64)
    for i in a.order:
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
        i = a.order[k]
        read = False
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                read = read or follows[a.rd_op[r]] == 0 or follows[a.rd_op[r]] == 2
        if follows[i] == 1:
            follows[i] = 2 if read else 0
    for i in range(ops):
        follows[i] = 1 if follows[i] == 2 else 0
    return follows


@leaf
def place_of(a: Arrays, i: int, p: int, s: State) -> int:
    """Device of op `i`; one that follows is with its group, or will come to `p`."""
    if s.device[i] >= 0:
        return int(s.device[i])
    home = s.books.home[a.group[i]]
    return int(home if home >= 0 else p)


@leaf
def collect(a: Arrays, i: int, s: State) -> int:
    """Put the ops that would follow op `i` on the stack, inputs first; returns how many."""
    count = 0
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        j = a.t_op[a.in_t[k]]
        if s.device[j] < 0 and not _is_among(s.stack, count, j):
            s.stack[count] = j
            count += 1
    done = 0
    while done < count:
        j = s.stack[done]
        done += 1
        for k in range(a.in_ptr[j], a.in_ptr[j + 1]):
            above = a.t_op[a.in_t[k]]
            if s.device[above] < 0 and not _is_among(s.stack, count, above):
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
def _is_among(stack: Ints, count: int, j: int) -> bool:
    found = False
    for k in range(count):
        found = found or stack[k] == j
    return found


@leaf
def over_cap(a: Arrays, i: int, p: int, s: State) -> int:
    """Bytes by which op `i` and what would follow it exceed the cap of device `p`; at most 0 if they fit."""
    count = collect(a, i, s)
    followers = 0
    for k in range(count):
        j = s.stack[k]
        if place_of(a, j, p, s) != p:
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
def may_run(a: Arrays, i: int, p: int, s: State) -> bool:
    """Whether op `i` is still to be placed and its group leaves it device `p`."""
    if s.device[i] >= 0:
        return False
    home = s.books.home[a.group[i]]
    return bool(home < 0 or home == p)


@leaf
def fits(a: Arrays, i: int, p: int, s: State) -> bool:
    """Whether device `p` has the memory for op `i` and what would follow it."""
    return over_cap(a, i, p, s) <= 0
