"""Placements made into lines of stages: forward goes from each stage to later ones only, and backward back along it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import ClassVar

import numpy as np

from baechi.cost.problem import Ints, Problem
from baechi.ir.graph import Graph
from baechi.placers import get_placer
from baechi.placers.base import Placer
from baechi.placers.variants import Placement

__all__ = ["Line", "line_of", "straightened"]


@dataclass(frozen=True)
class Line(Placer):
    """What another placer tries, made into lines of stages.

    Args:
        of: name of that placer.
    """

    name: ClassVar[str] = "line of stages"
    repairs: ClassVar[bool] = False
    coarsens: ClassVar[bool] = False
    of: str = "contiguous"

    def schedules(self, problem: Problem, seed: int) -> Iterator[Placement]:
        """Each of the other's, straightened."""
        tried = {found.device.tobytes(): found.device for found in get_placer(self.of).schedules(problem, seed)}
        for device in tried.values():
            yield Placement(straightened(problem, device))


def line_of(graph: Graph, homes: Sequence[str]) -> list[str]:
    """The devices in the order in which forward comes to them; where they take turns, in that of their ops on average.

    Args:
        graph: of a training step.
        homes: by op, its device.
    """
    forward = [i for i in graph.order if graph.ops[i].phase == "forward"]
    makers = {tensor.name: i for i in forward for tensor in graph.ops[i].outputs}
    before: dict[str, set[str]] = {homes[i]: set() for i in forward}
    ranks: dict[str, list[int]] = {homes[i]: [] for i in forward}
    for rank, i in enumerate(forward):
        made = [makers[name] for name in graph.ops[i].inputs]
        before[homes[i]] |= {homes[m] for m in made if graph.ops[m].inputs} - {homes[i]}
        ranks[homes[i]].append(rank)
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError:
        return sorted(ranks, key=lambda home: sum(ranks[home]) / len(ranks[home]))


def straightened(problem: Problem, device: Ints) -> Ints:
    """A placement whose forward ops read only what stands on the same device or before it in the line.

    An op that reads from a later stage moves there, with its group; what is made from nothing, such as a weight, goes
    to the first that reads it; and what belongs to a forward op goes where that is.

    Args:
        problem: a training step.
        device: (ops,) index of each op's device; not changed.
    """
    graph, group = problem.graph, problem.arrays.group
    line = [int(name) for name in line_of(graph, [str(d) for d in device])]
    place = {d: s for s, d in enumerate(line)}
    forward = [i for i in graph.order if graph.ops[i].phase == "forward"]
    makers = {tensor.name: i for i in forward for tensor in graph.ops[i].outputs}
    reads = {i: [makers[name] for name in graph.ops[i].inputs] for i in forward}
    stage = {int(group[i]): place[int(device[i])] for i in forward if reads[i]}
    moved = True
    while moved:
        moved = False
        for i in forward:
            latest = max((stage.get(int(group[m]), 0) for m in reads[i] if reads[m]), default=0)
            if reads[i] and latest > stage[int(group[i])]:
                stage[int(group[i])], moved = latest, True
    first: dict[int, int] = {}
    for i in forward:
        for m in reads[i]:
            if not reads[m]:
                first[int(group[m])] = min(first.get(int(group[m]), len(line)), stage[int(group[i])])
    stage = {**first, **stage}
    found = np.array(device, np.int64)
    for i, op in enumerate(graph.ops):
        own = stage.get(int(group[i]))
        if own is None and op.forward in graph.index:
            own = stage.get(int(group[graph.index[op.forward]]))
        if own is not None:
            found[i] = line[own]
    return found
