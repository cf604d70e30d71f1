"""The compiled loop of HEFT and its kin: ready ops by priority, each into the gap where it ends soonest."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import Arrays, Ints
from baechi.placers.arrival import earliest
from baechi.placers.listing import State, begin, collect, place_of
from baechi.placers.slots import Slots, book, new_slots, slot
from baechi.sim.heap import heap_pop, heap_push

__all__ = ["Order", "Ranked", "by_rank"]


class Order(NamedTuple):
    """What the loop goes by.

    Attributes:
        priority: (ops,) the larger, the earlier; of equals the first in topological order.
        ahead: (ops, devices) ticks to add to an op's end before devices are compared, or nothing.
        pinned: (ops,) the device that an op prefers, or -1.
    """

    priority: Ints
    ahead: Ints
    pinned: Ints


class Ranked(NamedTuple):
    """What came out.

    Attributes:
        device: (ops,) device of each op.
        taken: (ops,) the ops in the order in which they were placed.
        start, end: (ops,) in ticks, as planned.
    """

    device: Ints
    taken: Ints
    start: Ints
    end: Ints


class _Books(NamedTuple):
    """What changes besides `State`.

    Attributes:
        claim: (groups,) bytes that a group takes where it goes.
        room: (devices,) bytes that are not claimed.
        start: (ops,) planned start.
        ready: a heap of ops by priority.
        choice: the device chosen for the op at hand.
    """

    claim: Ints
    room: Ints
    start: Ints
    ready: Ints
    choice: Ints


_CHOSEN, _LEAST, _FITS = range(3)
"""Where `_Books.choice` keeps what."""


@kernel
def by_rank(a: Arrays, order: Order, claim: Ints, follow: bool) -> Ranked:
    """Place all ops; O((ops x gaps looked at + reads) x devices + ops log ops).

    Args:
        claim: (groups,) bytes that a group takes of its device's cap; where no device has them, it
            goes where most is left.
        follow: place what is free and there from the start, such as a parameter, with its first reader.
    """
    ops = len(a.rank)
    s = begin(a, np.full(len(a.group_ptr) - 1, -1, np.int64), False)
    if not follow:
        s.follows[:] = 0
    slots = new_slots(ops, len(a.cap))
    heap = np.empty((ops + 2, 2), np.int64)
    heap[0, 0] = 0
    b = _Books(claim, a.cap.copy(), np.zeros(ops, np.int64), heap, np.zeros(3, np.int64))
    for i in range(ops):
        if s.follows[i]:
            _release_readers(a, order, i, s, b)
    for i in range(ops):
        if a.in_ptr[i] == a.in_ptr[i + 1] and not s.follows[i]:
            heap_push(b.ready, -order.priority[i], a.rank[i])
    taken = 0
    while b.ready[0, 0] > 0:
        taken = _place(a, order, a.order[heap_pop(b.ready)], s, slots, b, taken)
    return Ranked(s.device, s.sequence, b.start, s.end)


@leaf
def _release_readers(a: Arrays, order: Order, i: int, s: State, b: _Books) -> None:
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[k]
            s.waits[reader] -= 1
            if s.waits[reader] == 0 and not s.follows[reader]:
                heap_push(b.ready, -order.priority[reader], a.rank[reader])


@leaf
def _place(a: Arrays, order: Order, i: int, s: State, slots: Slots, b: _Books, taken: int) -> int:
    followers = collect(a, i, s)
    _choose(a, order, i, _need(a, i, followers, s, b), s, slots, b)
    p = b.choice[_CHOSEN]
    for k in range(followers):
        j = s.stack[k]
        q = place_of(a, j, p, s)
        b.start[j] = s.end[j] = slot(slots, q, earliest(a, j, q, s, True), 0)
        book(slots, q, b.start[j], 0)
        taken = _enter(a, j, q, s, b, taken)
    start = slot(slots, p, earliest(a, i, p, s, True), a.ticks[i, p])
    book(slots, p, start, a.ticks[i, p])
    b.start[i], s.end[i] = start, start + a.ticks[i, p]
    taken = _enter(a, i, p, s, b, taken)
    _release_readers(a, order, i, s, b)
    return taken


@leaf
def _need(a: Arrays, i: int, followers: int, s: State, b: _Books) -> int:
    """Bytes that op `i` and what follows it newly claim."""
    need = b.claim[a.group[i]] if s.books.home[a.group[i]] < 0 else 0
    for k in range(followers):
        g = a.group[s.stack[k]]
        counted = s.books.home[g] >= 0 or g == a.group[i]
        for before in range(k):
            counted = counted or a.group[s.stack[before]] == g
        if not counted:
            need += b.claim[g]
    return int(need)


@leaf
def _choose(a: Arrays, order: Order, i: int, need: int, s: State, slots: Slots, b: _Books) -> None:
    """The device where op `i` ends soonest; if none has room, the one with most of it."""
    home = s.books.home[a.group[i]]
    b.choice[_CHOSEN] = -1
    for p in range(len(a.cap)):
        if home >= 0 and p != home:
            continue
        fits = 1 if home >= 0 or need <= b.room[p] else 0
        if order.pinned[i] == p and fits:
            b.choice[_CHOSEN] = p
            return
        measure = -b.room[p]
        if fits:
            measure = slot(slots, p, earliest(a, i, p, s, False), a.ticks[i, p]) + a.ticks[i, p]
            if len(order.ahead):
                measure += order.ahead[i, p]
        better = b.choice[_CHOSEN] < 0 or fits > b.choice[_FITS]
        if better or (fits == b.choice[_FITS] and measure < b.choice[_LEAST]):
            b.choice[_CHOSEN], b.choice[_LEAST], b.choice[_FITS] = p, measure, fits


@leaf
def _enter(a: Arrays, i: int, p: int, s: State, b: _Books, taken: int) -> int:
    g = a.group[i]
    if s.books.home[g] < 0:
        s.books.home[g] = p
        b.room[p] -= b.claim[g]
    s.device[i] = p
    s.sequence[taken] = i
    return taken + 1
