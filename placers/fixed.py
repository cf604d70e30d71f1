"""Placers that follow a rule and choose nothing: the baselines that every plan is compared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import Arrays, Ints, Problem
from baechi.errors import BaechiError
from baechi.placers.base import Placer
from baechi.placers.variants import bound_to
from baechi.sim.evaluate import Schedule, evaluate

__all__ = ["Contiguous", "Expert", "RoundRobin", "Single"]

Floats = NDArray[np.float64]
_ROUNDS = 8


@dataclass(frozen=True)
class Single(Placer):
    """Everything on the one device where the step is shortest and fits."""

    name: ClassVar[str] = "single"
    repairs: ClassVar[bool] = False
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """One schedule for each device."""
        for d in range(len(problem.cluster)):
            yield Schedule(np.full(len(problem.graph), d, np.int64), problem.arrays.order)


@dataclass(frozen=True)
class RoundRobin(Placer):
    """Colocation groups to devices in turn, in topological order of their first op."""

    name: ClassVar[str] = "round-robin"
    repairs: ClassVar[bool] = False
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """The one placement, in two orders."""
        a = problem.arrays
        yield from bound_to(problem, (_turns(a) % len(a.cap))[a.group])


@dataclass(frozen=True)
class Contiguous(Placer):
    """One segment of the topological order for each device, cut by time, by memory and in between.

    Of a training step, the forward ops are cut and the backward ops follow them. Cuts by memory
    are moved a few times, each time by what the simulator says of every device's peak.
    """

    name: ClassVar[str] = "contiguous"
    repairs: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """Splits over two, three and up to all devices."""
        a = problem.arrays
        seen = set()
        for devices in range(2, len(a.cap) + 1):
            for share in (1.0, 0.75, 0.5, 0.25, 0.0):
                device = _segments(a, devices, share)[a.group]
                if device.tobytes() not in seen:
                    seen.add(device.tobytes())
                    yield from bound_to(problem, device)
        room = a.cap / a.cap.sum()
        for _ in range(_ROUNDS):
            device = _cut(a, _held(a), room)[a.group]
            yield from bound_to(problem, device)
            peak = evaluate(a, Schedule(device, a.order))[0].peak
            room = _share(room * np.sqrt(a.cap / np.maximum(peak, 1)))


@dataclass(frozen=True)
class Expert(Placer):
    """The split that the graph's author wrote down (`Op.expert`); what has none follows its group, or
    the op that makes its first input, or goes to the first device.

    Raises:
        BaechiError: B504 when the graph carries no such split.
    """

    name: ClassVar[str] = "expert"
    repairs: ClassVar[bool] = False
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """The one placement, in two orders."""
        yield from bound_to(problem, _experts(problem))


def _turns(a: Arrays) -> Ints:
    """Rank of each group by its first op in topological order."""
    first = np.full(len(a.group_ptr) - 1, len(a.rank))
    np.minimum.at(first, a.group, a.rank)
    return np.argsort(np.argsort(first))


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
    order = np.argsort(_turns(a))
    middle = np.cumsum(load[order]) - load[order] / 2
    device = np.empty(len(load), np.int64)
    device[order] = np.minimum(np.searchsorted(np.cumsum(room), middle, side="right"), len(room) - 1)
    return device


def _share(values: NDArray[Any]) -> Floats:
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), 1 / len(values))


def _experts(problem: Problem) -> Ints:
    a, ops = problem.arrays, problem.graph.ops
    chosen = np.array([-1 if op.expert is None else op.expert % len(a.cap) for op in ops], np.int64)
    if (chosen < 0).all():
        raise BaechiError("B504", f"'{problem.graph.name}' carries no expert split", help="use another placer")
    group = np.full(len(a.group_ptr) - 1, -1, np.int64)
    for i in problem.graph.order:
        if chosen[i] >= 0 and group[a.group[i]] < 0:
            group[a.group[i]] = chosen[i]
    for i in problem.graph.order:
        if group[a.group[i]] < 0:
            made_on = [group[a.group[a.t_op[t]]] for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]]
            group[a.group[i]] = next((d for d in made_on if d >= 0), 0)
    return np.asarray(group[a.group], np.int64)
