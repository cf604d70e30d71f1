"""Placers that follow a rule and choose nothing: the baselines that every plan is compared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baechi.cost.problem import Arrays, Ints, Problem
from baechi.errors import BaechiError
from baechi.placers.base import Placer
from baechi.placers.chain import turns
from baechi.placers.segments import splits
from baechi.placers.variants import Placement
from baechi.sim.evaluate import Schedule

__all__ = ["Contiguous", "Expert", "RoundRobin", "Single"]


@dataclass(frozen=True)
class Single(Placer):
    """Everything on the one device where the step is shortest and fits."""

    name: ClassVar[str] = "single"
    repairs: ClassVar[bool] = False
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """One schedule for each kind of device, on the first of it."""
        for d in _first_of_kind(problem.arrays):
            yield Schedule(np.full(len(problem.arrays.rank), d, np.int64), problem.arrays.order)


def _first_of_kind(a: Arrays) -> list[int]:
    """Devices on which all of a step is not the same as on one before: other times, memory or cores."""
    cores = a.cores[a.host]
    first: list[int] = []
    for d in range(len(a.cap)):
        like = (e for e in first if (a.cap[e], a.threads[e], cores[e]) == (a.cap[d], a.threads[d], cores[d]))
        if not any(np.array_equal(a.ticks[:, e], a.ticks[:, d]) for e in like):
            first.append(d)
    return first


@dataclass(frozen=True)
class RoundRobin(Placer):
    """Colocation groups to devices in turn, in topological order of their first op."""

    name: ClassVar[str] = "round-robin"
    repairs: ClassVar[bool] = False
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Placement]:
        """The one placement."""
        a = problem.arrays
        yield Placement((turns(a) % len(a.cap))[a.group])


@dataclass(frozen=True)
class Contiguous(Placer):
    """One segment of a line of groups for each device.

    The topological order, cut by time, by memory and in between, cuts by memory moved a few times by
    what the simulator says of every device's peak; and the best cuts of the same line, and of lines
    in which what talks much stands close, for the highest load of a device (`chain_splits`). Of a
    training step, the forward ops are cut and the backward ops follow them.
    """

    name: ClassVar[str] = "contiguous"
    repairs: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Placement]:
        """Splits over two, three and up to all devices."""
        return splits(problem)


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

    def schedules(self, problem: Problem, seed: int) -> Iterator[Placement]:
        """The one placement."""
        yield Placement(_experts(problem))


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
