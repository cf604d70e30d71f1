"""Pipelines over micro-batches: stages of a line of groups, on devices in turn, and who works when.

A step that was unrolled into m copies (`Op.copy`) runs as a pipeline when each device keeps a stage of
the model and works on one micro-batch while its neighbours work on others. D equal stages of f + b seconds
each take (m + D - 1)(f + b); v smaller stages a device, dealt out in turn, take m(f + b) + (D - 1)(f + b) / v.

Sources: Huang et al., "GPipe" (2019), which does all forward work first; Narayanan et al., "PipeDream"
(2019), one forward, one backward; Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
Clusters Using Megatron-LM" (2021), several stages a device; Qi et al., "Zero Bubble Pipeline Parallelism"
(2024), which puts the gradients of weights off until there is nothing else to do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import LINK, Ints, Problem
from baechi.placers import stages
from baechi.placers.base import Placer
from baechi.placers.segments import splits
from baechi.placers.shares import held_bytes, shares
from baechi.placers.stages import BACKWARD, FORWARD, UPDATE, WEIGHT
from baechi.placers.timetable import Rules, alternating, order, timetable
from baechi.placers.variants import Found
from baechi.sim.evaluate import Schedule

__all__ = ["Pipeline", "pipeline_schedules"]

Floats = NDArray[np.float64]

_ROUNDS = (2, 1, 4)
"""Stages a device."""
_PATIENCE = 0.1
"""Of the work of a stage: for how long a device waits for the micro-batch that comes first."""


class _Policy(NamedTuple):
    """In which order a device works.

    Attributes:
        first: kinds of work, what goes first before the rest; none for the fixed order of `alternating`.
        room: how many micro-batches may be under way, as a multiple of what one forward, one backward
            holds; 0 is no limit.
        apart: whether the gradients of weights are work of their own.
    """

    first: tuple[int, ...]
    room: int
    apart: bool


_POLICIES = (
    _Policy((BACKWARD, FORWARD, WEIGHT), 1, True),  # zero bubble
    _Policy((), 1, False),  # one forward, one backward
    _Policy((BACKWARD, FORWARD, WEIGHT), 2, True),
    _Policy((WEIGHT, BACKWARD, FORWARD), 2, True),
    _Policy((FORWARD, WEIGHT, BACKWARD), 0, True),  # fill first
)


@dataclass(frozen=True)
class Pipeline(Placer):
    """A pipeline over the micro-batches of an unrolled step; of any other step, contiguous splits."""

    name: ClassVar[str] = "pipeline"
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Found]:
        """Those of `pipeline_schedules`."""
        found = False
        for schedule in pipeline_schedules(problem):
            found = True
            yield schedule
        if not found:
            yield from splits(problem)


def pipeline_schedules(problem: Problem) -> Iterator[Schedule]:
    """Schedules of a step of micro-batches as a pipeline over all devices; none of a step without micro-batches.

    Groups are put in a line, by forward order. The line is cut into one, two and four stages a device,
    dealt out in turn, of equal time or equal memory, where little has to be sent. For each cut there
    are the orders of `_POLICIES`. None needs to fit.

    Args:
        problem: of the whole step, with any groups; copies of one op share one.

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.ir.graph import Graph
        >>> from baechi.ir.op import Op, Tensor
        >>> from baechi.passes import microbatches
        >>> from baechi.sim.evaluate import score
        >>> a = Op("a", "node", outputs=(Tensor("x"),), seconds=4e-12)
        >>> step = microbatches(Graph((a, Op("b", "node", ("x",), seconds=4e-12))), 4)
        >>> problem = Problem(step, Cluster((Device("d0", 1), Device("d1", 1))))
        >>> min(score(problem.arrays, schedule) for schedule in pipeline_schedules(problem))
        (0, 5)
    """
    devices = len(problem.cluster)
    if devices < 2 or not any(op.copy for op in problem.graph.ops):
        return
    line = _Line(problem)
    for rounds in _ROUNDS:
        if rounds > 1 and rounds * devices > len(line.groups):
            continue
        seen = set()
        for piece in line.cuts(rounds):
            if piece.tobytes() not in seen:
                seen.add(piece.tobytes())
                yield from _Pipeline(line, piece, rounds).schedules()


class _Line:
    """The groups of a step in a line.

    Attributes:
        labels: what the IR says of the ops.
        copies: number of micro-batches.
        groups: from first to last.
        crossing: (2, groups + 1) what is sent across a cut before each, forward and backward.
    """

    def __init__(self, problem: Problem) -> None:
        self.a = a = problem.arrays
        self.labels = stages.labels_of(problem)
        self.copies = int(self.labels.copy.max()) + 1
        self.groups = np.argsort(stages.positions(a, self.labels), kind="stable")
        place = np.argsort(self.groups)
        sent = np.rint(a.latency.mean() + a.t_bytes * a.ticks_per_byte.mean()).astype(np.int64)
        cost = np.where(a.t_ticks == LINK, sent, np.maximum(a.t_ticks, 0))
        self.crossing = stages.crossings(a, self.labels, place, cost)

    def cuts(self, rounds: int) -> Iterator[Ints]:
        """Stage of each group of the line: by time, by time and memory, by memory."""
        a = self.a
        crossing = self.crossing.sum(axis=0)
        work = np.bincount(a.group, a.ticks.min(axis=1), len(self.groups))
        time, memory = (shares(of_groups[self.groups]) for of_groups in (work, held_bytes(a)))
        speed, cap = shares(1.0 / np.maximum(a.ticks.sum(axis=0), 1)), shares(a.cap)
        wanted = ((time, speed, 0.02), (time, speed, 0.15), (time + memory, speed + cap, 0.15), (memory, cap, 0.15))
        for load, room, slack in wanted:
            yield stages.cut(load, crossing, np.tile(room / room.max(), rounds), slack)


class _Pipeline:
    """A line that was cut into stages, dealt out to the devices in turn."""

    def __init__(self, line: _Line, piece: Ints, rounds: int) -> None:
        self.line, self.rounds = line, rounds
        a, self.devices = line.a, len(line.a.cap)
        self.home = np.arange(self.devices * rounds) % self.devices
        stage = np.empty(len(piece), np.int64)
        stage[line.groups] = piece
        self.stage = stage[a.group]
        self.device = self.home[self.stage]
        ends = np.searchsorted(piece, np.arange(1, len(self.home) + 1))
        self.delay = line.crossing[:, ends]
        self.delay[BACKWARD, 1:] = self.delay[BACKWARD, :-1]  # that of a stage's gradients, at its other end

    def schedules(self) -> Iterator[Schedule]:
        a, labels = self.line.a, self.line.labels
        drawn = stages.draws(a, labels)
        for policy in _POLICIES:
            kind = stages.kinds(a, labels, self.stage) if policy.apart else labels.phase
            turn = self._turns(kind, policy)
            if turn.size == 0:
                continue
            key = np.full(len(kind), 2 * turn.size + 1, np.int64)
            key[kind == UPDATE] = 2 * turn.size
            mine = (kind != UPDATE) & (labels.copy >= 0)
            key[mine] = 2 * turn[kind[mine], self.stage[mine], labels.copy[mine]]
            # A draw waits for those of all earlier copies: a copy's are made when it enters the first stage.
            key[drawn] = 2 * turn[FORWARD, 0, labels.copy[drawn]] - 1
            yield Schedule(self.device, order(a, np.lexsort((a.rank, key))))

    def _turns(self, kind: Ints, policy: _Policy) -> Ints:
        """(3, stages, copies) number of each work in the order of their starts."""
        copies, count = self.line.copies, len(self.home)
        if not policy.first:
            return alternating(self.devices, self.rounds, copies)
        ticks = self.line.a.ticks[np.arange(len(kind)), self.device]
        work = kind != UPDATE
        total = np.bincount(kind[work] * count + self.stage[work], ticks[work], 3 * count)
        seconds = np.rint(total / copies).astype(np.int64).reshape(3, count)
        before = self.devices - 1 - np.arange(self.devices)
        room = before + 1 if self.rounds == 1 else 2 * before + (self.rounds - 1) * self.devices + 1
        if policy.first[-1] == WEIGHT:
            room = np.full(self.devices, room.max())  # later devices fill their memory with gradients put off
        most = room * policy.room if policy.room else np.full(self.devices, copies * self.rounds)
        patience = int(seconds.sum(axis=0).mean() * _PATIENCE)
        return timetable(seconds, self.delay, self.home, copies, Rules(np.array(policy.first), most, patience))
