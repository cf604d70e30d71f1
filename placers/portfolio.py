"""The default placer: the best of the others, made better until time is up or the bound is near."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import ClassVar, NamedTuple

from baechi.cost.problem import Arrays, Problem
from baechi.errors import Infeasible
from baechi.placers.base import Placer, Scored, Solution
from baechi.placers.etf import Etf
from baechi.placers.fixed import Contiguous, Single
from baechi.placers.sct import Sct
from baechi.placers.search import improve, tries_for
from baechi.placers.topo import Topo
from baechi.placers.variants import Variant
from baechi.placers.watch import Watch
from baechi.sim.evaluate import Schedule, score

__all__ = ["Auto"]

_WARMTHS = (0.003, 0.01, 0.001, 0.05)  # of the searches in each round
_CHAINS = len(_WARMTHS)
_THREADS = 2
_ROUNDS = 3
_ROUND_SECONDS = 1.5
_LARGEST_PROGRAMME = 50_000  # ops up to which m-SCT takes part


class _Job(NamedTuple):
    start: Schedule
    tries: int
    seed: int
    warmth: float


@dataclass(frozen=True)
class Auto(Placer):
    """Never worse than doing less: one device, contiguous splits, m-TOPO, m-ETF and m-SCT compete in
    the simulator, and local search goes on from the best of them.

    Interrupted, it returns the best so far.

    Args:
        work: ops and reads that local search may visit, when it has no budget; it then finds the same
            on every machine.
        budget: seconds to search, instead; 0 for none.
        gap: stop this near to the lower bound, as a fraction of it.
    """

    name: ClassVar[str] = "auto"
    work: float = 1.5e9
    budget: float = 0.0
    gap: float = 0.0

    def solve(self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch) -> Solution:
        """The improved best of the competitors that fit."""
        watch.budget, watch.gap = self.budget or None, self.gap
        pool = _Pool(problem.arrays, watch)
        try:
            self._compete(problem, views, seed, pool)
            if len(problem.cluster) > 1:
                self._search(views, seed, pool)
        except KeyboardInterrupt:
            if not pool.found or pool.best.score[0] > 0:
                raise
            watch.interrupted = True
        return Solution(pool.best.schedule)

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """What it finds for the problem as it is."""
        yield self.solve(problem, (Variant.plain(problem),), seed, Watch()).schedule

    def _compete(self, problem: Problem, views: Sequence[Variant], seed: int, pool: "_Pool") -> None:
        failure: Infeasible | None = None
        members = [
            Single(),
            Contiguous(),
            Topo(),
            Etf(),
            *([Sct()] if len(problem.graph) <= _LARGEST_PROGRAMME else []),
        ]
        for placer in members:
            if pool.found and pool.watch.done:
                return
            try:
                pool.add([placer.solve(problem, views, seed, pool.watch).schedule])
            except Infeasible as error:
                failure = error
        if not pool.found and failure is not None:
            raise failure

    def _search(self, views: Sequence[Variant], seed: int, pool: "_Pool") -> None:
        """Rounds of searches from the best: over what belongs together first, over single groups last."""
        fields = [view.whole.arrays for view in (*views[1:], views[0])]
        rounds = [a for a in fields for _ in range(_ROUNDS)] if self.budget == 0 else cycle(fields)
        share = self.work / (_ROUNDS * len(fields) * _CHAINS)
        with ThreadPoolExecutor(_THREADS) as threads:
            for k, a in enumerate(rounds):
                if pool.watch.done:
                    return
                began = time.monotonic()
                pool.add(list(threads.map(partial(_chain, a), self._jobs(a, share, seed + _CHAINS * k, pool))))
                if self.budget > 0:
                    aim = min(_ROUND_SECONDS, pool.watch.seconds_left or 0.0)
                    share *= aim / max(time.monotonic() - began, 1e-3)

    def _jobs(self, a: Arrays, work: float, seed: int, pool: "_Pool") -> Iterator[_Job]:
        starts = pool.found[:2]
        for c in range(_CHAINS):
            yield _Job(starts[c % len(starts)].schedule, tries_for(a, work), seed + c, _WARMTHS[c])


def _chain(a: Arrays, job: _Job) -> Schedule:
    return improve(a, job.start, tries=job.tries, seed=job.seed, warmth=job.warmth)


class _Pool:
    """Schedules found so far, the best first, each placement and sequence once."""

    def __init__(self, a: Arrays, watch: Watch) -> None:
        self.a = a
        self.watch = watch
        self.found: list[Scored] = []
        self._seen: set[bytes] = set()

    @property
    def best(self) -> Scored:
        return self.found[0]

    def add(self, schedules: Iterable[Schedule]) -> None:
        for schedule in schedules:
            key = schedule.device.tobytes() + schedule.sequence.tobytes()
            if key not in self._seen:
                self._seen.add(key)
                self.found.append(Scored(score(self.a, schedule), schedule))
        self.found.sort(key=lambda one: one.score)
        self.watch.note(self.best.score)
