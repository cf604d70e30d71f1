"""The default placer: the best of the others, made better."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from baechi.cost.problem import Problem
from baechi.errors import Infeasible
from baechi.placers.base import Placer, Solution, best_of
from baechi.placers.etf import Etf
from baechi.placers.fixed import Contiguous, Single
from baechi.placers.improve import improve, tries_for
from baechi.placers.sct import Sct
from baechi.placers.topo import Topo
from baechi.placers.variants import Variant
from baechi.sim.evaluate import Schedule

__all__ = ["Auto"]


@dataclass(frozen=True)
class Auto(Placer):
    """Never worse than doing less: one device, a contiguous split, m-TOPO, m-ETF and m-SCT compete in
    the simulator, and local search goes on from the best of them.

    Args:
        work: simulator events that local search may spend.
    """

    name: ClassVar[str] = "auto"
    work: float = 1.5e7

    def solve(self, problem: Problem, views: Sequence[Variant], seed: int) -> Solution:
        """The improved best of the competitors that fit."""
        found = list(self._found(problem, views, seed))
        best = best_of(problem, found).schedule
        if len(problem.cluster) == 1:
            return Solution(best)
        for view in (*views[1:], views[0]):
            a = view.whole.arrays
            best = best_of(problem, (best, improve(a, best, tries=tries_for(a, self.work), seed=seed))).schedule
        return Solution(best)

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """What it finds for the problem as it is."""
        yield self.solve(problem, (Variant.plain(problem),), seed).schedule

    def _found(self, problem: Problem, views: Sequence[Variant], seed: int) -> Iterator[Schedule]:
        failure: Infeasible | None = None
        some = False
        for placer in (Single(), Contiguous(), Topo(), Etf(), Sct()):
            try:
                yield placer.solve(problem, views, seed).schedule
                some = True
            except Infeasible as error:
                failure = error
        if not some and failure is not None:
            raise failure
