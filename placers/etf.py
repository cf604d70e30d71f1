"""m-ETF: list scheduling by earliest start under memory caps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baechi.cost.problem import PARALLEL, Ints, Problem
from baechi.placers.base import Placer
from baechi.placers.effort import visits
from baechi.placers.schedule import list_schedule
from baechi.sim.evaluate import Schedule

__all__ = ["Etf", "scheduled"]

_WORK = 2e6  # visits up to which the simulator's own order of transfers is tried too


@dataclass(frozen=True)
class Etf(Placer):
    """Memory-constrained earliest task first.

    The earliest schedulable time of op j on device p is

        est(j, p) = max( free(p), max over parents i of s_i + k_i + c_ij [dev(i) != p] )

    plus the wait at the copy lanes; the pair with the smallest starts next, if the device's memory
    can take it. A colocation group is placed with its first op.

    At a dead end, where no ready op fits anywhere, the original stops; here the op that goes least
    over a cap is placed and the result is mended afterwards.

    Source: Jeon et al., "Baechi: Fast Device Placement of Machine Learning Graphs", section 2.2;
    Hwang et al., "Scheduling precedence graphs in systems with interprocessor communication times"
    (SIAM J. Comput. 1989).

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.ir.graph import Graph
        >>> from baechi.ir.op import Op
        >>> two = Cluster((Device("a", 8), Device("b", 8)))
        >>> Etf().place(Graph((Op("x", "op", seconds=1.0), Op("y", "op", seconds=1.0))), two).predicted.step_seconds
        1.0
    """

    name: ClassVar[str] = "m-etf"

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """The list schedule, its transfers as it planned them and, unless the graph is very large, as the simulator would."""
        yield from scheduled(problem, np.full(len(problem.arrays.rank), -1, np.int64))


def scheduled(problem: Problem, child: Ints) -> Iterator[Schedule]:
    """What the list scheduler makes of favourite children (-1: none); of a very large graph as planned only."""
    a = problem.arrays
    made = list_schedule(a, child, np.full(len(a.group_ptr) - 1, -1, np.int64), True)
    yield Schedule(made.device, made.sequence, made.sent)
    if a.contention != PARALLEL and visits(a) <= _WORK:
        yield Schedule(made.device, made.sequence)
