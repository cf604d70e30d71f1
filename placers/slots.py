"""Gaps between what is planned on each device, for schedulers that insert."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import Ints

__all__ = ["Slots", "book", "new_slots", "slot"]

_MOST_KEPT = 2048  # gaps and spans of a device; the earliest are forgotten
_FOREVER = 2**62


class Slots(NamedTuple):
    """What is planned, by device.

    Attributes:
        gap, gaps: (devices, kept, 2) idle times, as start and end, and how many there are; the last never ends.
        busy, spans: (devices, kept, 2) spans of ops that take time, in order, and how many there are.
    """

    gap: Ints
    gaps: Ints
    busy: Ints
    spans: Ints


@maker
def new_slots(ops: int, devices: int) -> Slots:
    """Nothing is planned."""
    kept = min(ops + 2, _MOST_KEPT)
    gap = np.empty((devices, kept, 2), np.int64)
    gap[:, 0, 0] = 0
    gap[:, 0, 1] = _FOREVER
    return Slots(gap, np.ones(devices, np.int64), np.empty((devices, kept, 2), np.int64), np.zeros(devices, np.int64))


@leaf
def _insert(spans: Ints, count: int, at: int, start: int, end: int) -> int:
    """Put a span before position `at`; where there is no room, the first half goes. Returns the count."""
    if count == len(spans):
        drop = min(at, count // 2)
        if drop == 0:
            return count
        for k in range(drop, count):
            spans[k - drop, 0], spans[k - drop, 1] = spans[k, 0], spans[k, 1]
        count -= drop
        at -= drop
    for k in range(count, at, -1):
        spans[k, 0], spans[k, 1] = spans[k - 1, 0], spans[k - 1, 1]
    spans[at, 0], spans[at, 1] = start, end
    return count + 1


@leaf
def _first(spans: Ints, count: int, moment: int) -> int:
    """The first of the spans that ends after a moment."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if spans[middle, 1] <= moment:
            low = middle + 1
        else:
            high = middle
    return low


@leaf
def slot(s: Slots, p: int, ready: int, ticks: int) -> int:
    """The earliest time from `ready` on when device `p` has `ticks` to spare; an op of none fits between two."""
    if ticks == 0:
        k = _first(s.busy[p], s.spans[p], ready)
        inside = k < s.spans[p] and s.busy[p, k, 0] < ready
        return int(s.busy[p, k, 1] if inside else ready)
    k = _first(s.gap[p], s.gaps[p], ready)
    while max(ready, s.gap[p, k, 0]) + ticks > s.gap[p, k, 1]:
        k += 1
    return int(max(ready, s.gap[p, k, 0]))


@leaf
def book(s: Slots, p: int, start: int, ticks: int) -> None:
    """Plan an op at a time that `slot` gave; one that takes no time parts the gap that it is in."""
    end = start + ticks
    if ticks > 0:
        s.spans[p] = _insert(s.busy[p], s.spans[p], _first(s.busy[p], s.spans[p], start), start, end)
    k = _first(s.gap[p], s.gaps[p], start)
    if ticks == 0 and s.gap[p, k, 0] >= start:
        return
    before, after = start - s.gap[p, k, 0], s.gap[p, k, 1] - end
    if before > 0 and after > 0:
        s.gap[p, k, 0] = end
        s.gaps[p] = _insert(s.gap[p], s.gaps[p], k, start - before, start)
    elif before > 0:
        s.gap[p, k, 1] = start
    elif after > 0:
        s.gap[p, k, 0] = end
    else:
        s.gaps[p] -= 1
        for m in range(k, s.gaps[p]):
            s.gap[p, m, 0], s.gap[p, m, 1] = s.gap[p, m + 1, 0], s.gap[p, m + 1, 1]
