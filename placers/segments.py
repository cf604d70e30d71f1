"""Cutting the topological order into one segment for each device."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import Arrays, Ints, Problem
from baechi.placers.chain import chain_splits, turns
from baechi.placers.effort import visits
from baechi.placers.variants import bound_to
from baechi.sim.evaluate import Schedule, evaluate

__all__ = ["splits"]

Floats = NDArray[np.float64]
_ROUNDS = 8
_FEWEST = 2
_WORK = 2e7  # visits over all cuts


def splits(problem: Problem) -> Iterator[Schedule]:
    """Schedules of all the cuts below, each placement once; of a very large graph, of the first few."""
    a = problem.arrays
    seen = set()
    most = max(_FEWEST, int(_WORK / visits(a)))
    lines = (home[a.group] for home in chain_splits(a))
    for device in islice(chain(lines, _cuts(a), _cuts_by_peak(a)), most):
        if device.tobytes() not in seen:
            seen.add(device.tobytes())
            yield from bound_to(problem, device)


def _cuts(a: Arrays) -> Iterator[Ints]:
    """Devices of the ops, cut by time, by memory and by blends of the two, over two to all devices."""
    for devices in range(len(a.cap), min(1, len(a.cap) - 1), -1):
        for share in (1.0, 0.75, 0.5, 0.25, 0.0):
            yield _segments(a, devices, share)[a.group]


def _cuts_by_peak(a: Arrays) -> Iterator[Ints]:
    """Devices of the ops, cut by memory; each time the cuts move by the peaks that the simulator saw."""
    room = a.cap / a.cap.sum()
    for _ in range(_ROUNDS):
        device = _cut(a, _held(a), room)[a.group]
        yield device
        peak = evaluate(a, Schedule(device, a.order))[0].peak
        room = _share(room * np.sqrt(a.cap / np.maximum(peak, 1)))


def _segments(a: Arrays, devices: int, share: float) -> Ints:
    """Device of each group: groups in order, cut where a blend of time and memory reaches each device's share."""
    groups = len(a.group_ptr) - 1
    speed = 1.0 / np.maximum(a.ticks.sum(axis=0).astype(float), 1.0)
    work = _share(np.bincount(a.group, a.ticks.min(axis=1), groups))
    load = share * work + (1 - share) * _held(a)
    return _cut(a, load, share * _share(speed[:devices]) + (1 - share) * _share(a.cap[:devices].astype(float)))


def _held(a: Arrays) -> Floats:
    """Each group's share of what persists and what is made."""
    held = a.persistent + np.bincount(a.t_op, a.t_size, len(a.rank))
    return _share(np.bincount(a.group, held, len(a.group_ptr) - 1))


def _cut(a: Arrays, load: Floats, room: Floats) -> Ints:
    """Device of each group: in topological order, the next one where the devices before it are full."""
    order = np.argsort(turns(a))
    middle = np.cumsum(load[order]) - load[order] / 2
    device = np.empty(len(load), np.int64)
    device[order] = np.minimum(np.searchsorted(np.cumsum(room), middle, side="right"), len(room) - 1)
    return device


def _share(values: NDArray[Any]) -> Floats:
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), 1 / max(1, len(values)))
