"""Cutting the topological order into one segment for each device."""

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import Arrays, Ints, Problem
from baechi.placers.chain import chain_splits, turns
from baechi.placers.effort import visits
from baechi.placers.shares import held_bytes, shares
from baechi.placers.variants import Placement
from baechi.sim.evaluate import Schedule, evaluate

__all__ = ["splits"]

Floats = NDArray[np.float64]
_ROUNDS = 8
_FEWEST = 2
_WORK = 1e6  # visits over all cuts


def splits(problem: Problem) -> Iterator[Placement]:
    """All the cuts below; of a large graph, the first few."""
    a = problem.arrays
    most = max(_FEWEST, int(_WORK / visits(a)))
    lines = (home[a.group] for home in chain_splits(a))
    yield from map(Placement, islice(chain(lines, _cuts_by_peak(a), _cuts(a)), most))


def _cuts(a: Arrays) -> Iterator[Ints]:
    """Devices of the ops, cut by time, by memory and by blends of the two, over two to all devices."""
    for devices in range(len(a.cap), min(1, len(a.cap) - 1), -1):
        for share in (1.0, 0.75, 0.5, 0.25, 0.0):
            yield _segments(a, devices, share)[a.group]


def _cuts_by_peak(a: Arrays) -> Iterator[Ints]:
    """Devices of the ops, cut by memory; each time the cuts move by the peaks that the simulator saw."""
    room = a.cap / a.cap.sum()
    for _ in range(_ROUNDS):
        device = _cut(a, shares(held_bytes(a)), room)[a.group]
        yield device
        peak = evaluate(a, Schedule(device, a.order))[0].peak
        room = shares(room * np.sqrt(a.cap / np.maximum(peak, 1)))


def _segments(a: Arrays, devices: int, share: float) -> Ints:
    """Device of each group: groups in order, cut where a blend of time and memory reaches each device's share."""
    groups = len(a.group_ptr) - 1
    speed = 1.0 / np.maximum(a.ticks.sum(axis=0).astype(float), 1.0)
    work = shares(np.bincount(a.group, a.ticks.min(axis=1), groups))
    load = share * work + (1 - share) * shares(held_bytes(a))
    return _cut(a, load, share * shares(speed[:devices]) + (1 - share) * shares(a.cap[:devices].astype(float)))


def _cut(a: Arrays, load: Floats, room: Floats) -> Ints:
    """Device of each group: in topological order, the next one where the devices before it are full."""
    order = np.argsort(turns(a))
    middle = np.cumsum(load[order]) - load[order] / 2
    device = np.empty(len(load), np.int64)
    device[order] = np.minimum(np.searchsorted(np.cumsum(room), middle, side="right"), len(room) - 1)
    return device
