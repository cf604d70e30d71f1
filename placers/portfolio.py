"""The default placer: the best of all the others, made better."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from baechi.cost.problem import Problem
from baechi.placers.base import Placer
from baechi.placers.etf import Etf
from baechi.placers.fixed import Contiguous, Single
from baechi.placers.improve import improve, tries_for
from baechi.placers.sct import Sct
from baechi.placers.topo import Topo
from baechi.sim.evaluate import Schedule, evaluate, excess_bytes

__all__ = ["Auto"]


@dataclass(frozen=True)
class Auto(Placer):
    """Never worse than doing less: one device, a contiguous split, m-TOPO, m-ETF and m-SCT compete in
    the simulator, and local search goes on from the best of them.

    Args:
        work: simulator events that local search may spend on each variant of the graph.
    """

    name: ClassVar[str] = "auto"
    work: float = 1e7

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """All competitors' schedules, then the improved best."""
        a = problem.arrays
        best, score = None, (0, 0)
        for placer in (Single(), Contiguous(), Topo(), Etf(), Sct()):
            for schedule in placer.schedules(problem, seed):
                run, _ = evaluate(a, schedule)
                this = (excess_bytes(a, run.peak), run.makespan)
                if best is None or this < score:
                    best, score = schedule, this
                yield schedule
        if best is not None and len(a.cap) > 1:
            yield improve(a, best, tries=tries_for(a, self.work), seed=seed)
