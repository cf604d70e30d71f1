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
from baechi.placers.base import Placer, Scored, Solution, mends_few
from baechi.placers.etf import Etf
from baechi.placers.fixed import Contiguous, Single
from baechi.placers.heft import Heft
from baechi.placers.metis import Metis
from baechi.placers.pipeline import Pipeline
from baechi.placers.sct import Sct
from baechi.placers.search import improve, justify, passes_for, tries_for
from baechi.placers.teams import Teams
from baechi.placers.topo import Topo
from baechi.placers.variants import Variant
from baechi.placers.watch import Watch, is_interrupt
from baechi.sim.evaluate import Judged, Schedule, judge
from baechi.sim.perturb import perturbed_ticks

__all__ = ["Auto"]

_WARMTHS = (0.003, 0.01, 0.001, 0.05)  # of the searches in each round
_CHAINS = len(_WARMTHS)
_THREADS = 2  # whatever the machine has: a search does not depend on how many run beside it
_ROUNDS = 4
_PATIENCE = 2  # rounds without success after which a field is left
_ROUND_SECONDS = 1.5
_LARGEST_PROGRAMME = 50_000  # ops up to which teams, m-SCT and METIS take part
_LARGEST_PROOF = 120  # groups up to which a budget pays for a proof
_SEARCH_SHARE = 0.4  # of such a budget
_SEQUENCES = 0.05  # of the work, for the sequence alone
_FEW, _SAMPLES, _KEPT = 8, 25, 8


class _Job(NamedTuple):
    start: Schedule
    tries: int
    seed: int
    warmth: float


@dataclass(frozen=True)
class Auto(Placer):
    """Never worse than doing less: one device, contiguous splits, m-TOPO, m-ETF, m-SCT, HEFT, teams, METIS where
    it is installed and, of micro-batches, pipelines compete in the simulator, and local search goes
    on from the best of them. With a budget, small graphs then go to the constraint programme.

    Interrupted, it returns the best so far.

    Args:
        work: ops and reads that local search may visit, when it has no budget; it then finds the same
            on every machine.
        budget: seconds to search, instead; 0 for none.
        gap: stop this near to the lower bound, as a fraction of it.
        perturb: choose, of the best few, the one with the best mean when all costs err at random by up
            to this fraction; 0 to choose by the costs as they are.
    """

    name: ClassVar[str] = "auto"
    searches: ClassVar[bool] = True
    work: float = 1.5e9
    budget: float = 0.0
    gap: float = 0.0
    perturb: float = 0.0

    def solve(self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch) -> Solution:
        """The improved best of the competitors that fit."""
        watch.budget, watch.gap = self.budget or None, self.gap
        pool = _Pool(problem.arrays, watch)
        try:
            _compete(problem, views, seed, pool)
            if len(problem.cluster) > 1:
                self._justify(seed, pool)
                self._search(views, seed, pool)
                self._prove(problem, seed, pool)
        except (KeyboardInterrupt, SystemError) as error:
            if not is_interrupt(error):
                raise
            if not pool.found or pool.best.score[0] > 0:
                raise KeyboardInterrupt from error
            watch.interrupted = True
        chosen = self._robust(pool, seed) if self.perturb > 0 else pool.best
        return Solution(chosen.schedule, pool.proved, chosen.judged)

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """What it finds for the problem as it is."""
        yield self.solve(problem, (Variant.plain(problem),), seed, Watch()).schedule

    def _justify(self, seed: int, pool: "_Pool") -> None:
        """First what list scheduling alone can do, which is most where transfers cost little."""
        tries = passes_for(pool.a, self.work * _SEQUENCES / _ROUNDS)
        if tries == 0 or pool.watch.done:
            return
        found = pool.best.schedule
        for k in range(_ROUNDS):
            if pool.watch.seconds_left == 0.0:
                break
            found = justify(pool.a, found, tries=tries, seed=seed + k, bound=pool.watch.bound)
        pool.add([found])

    def _search(self, views: Sequence[Variant], seed: int, pool: "_Pool") -> None:
        """Rounds of searches from the best: over what belongs together first, over single groups last."""
        fields = [view.whole.arrays for view in (*views[1:], views[0])]
        rounds = [a for a in fields for _ in range(_ROUNDS)] if self.budget == 0 else cycle(fields)
        last = self.budget * (_SEARCH_SHARE if _is_small(pool.a) else 1.0)
        share = self.work / (_ROUNDS * len(fields) * _CHAINS)
        with ThreadPoolExecutor(_THREADS) as threads:
            idle = 0  # rounds in a row that found nothing better
            for k, a in enumerate(rounds):
                if pool.watch.done or 0 < last < pool.watch.progress.seconds:
                    return
                idle = 0 if k % _ROUNDS == 0 else idle
                if tries_for(a, share) == 0 or (idle == _PATIENCE and self.budget == 0):
                    continue
                began, before = time.monotonic(), pool.best.score
                pool.add(list(threads.map(partial(_chain, a), _jobs(a, share, seed + _CHAINS * k, pool))))
                idle = idle + 1 if pool.best.score == before else 0
                if self.budget > 0:
                    aim = min(_ROUND_SECONDS, pool.watch.seconds_left or 0.0)
                    share *= aim / max(time.monotonic() - began, 1e-3)

    def _robust(self, pool: "_Pool", seed: int) -> Scored:
        few = [one for one in pool.found[:_FEW] if one.score[0] == pool.best.score[0]]
        return min(few, key=lambda one: perturbed_ticks(pool.a, one.schedule, self.perturb, _SAMPLES, seed).mean())

    def _prove(self, problem: Problem, seed: int, pool: "_Pool") -> None:
        """Spend what the search has left of the budget on a small graph's optimum and its proof."""
        if self.budget == 0 or pool.watch.done or not _is_small(pool.a):
            return
        from baechi.placers.cp import solve_exact  # a heavy import, which starts from what this placer finds

        proof = solve_exact(
            problem.arrays,
            pool.best.schedule,
            seconds=pool.watch.seconds_left or 0.0,
            gap=self.gap,
            workers=_THREADS,
            seed=seed,
            bound=pool.watch.bound,
        )
        pool.proved["constraint programme"] = proof.bound
        pool.watch.prove(proof.bound)
        pool.add([proof.schedule])


def _members(problem: Problem) -> Iterator[Placer]:
    size = len(problem.graph)
    quick: tuple[Placer, ...] = (Single(), Contiguous(), Topo(), Etf(), Heft())
    if size <= _LARGEST_PROGRAMME:
        # first where mending takes long, for where theirs is near the bound, little is mended
        quick = (Teams(), *quick) if mends_few(problem) else (*quick, Teams())
    yield from quick
    if any(op.copy is not None for op in problem.graph.ops):
        yield Pipeline()
    if size <= _LARGEST_PROGRAMME:
        yield Sct()
        if Metis.available():
            yield Metis()


def _compete(problem: Problem, views: Sequence[Variant], seed: int, pool: "_Pool") -> None:
    failure: Infeasible | None = None
    for placer in _members(problem):
        if pool.found and pool.watch.done:
            return
        try:
            solution = placer.solve(problem, views, seed, pool.watch)
            pool.add([solution.schedule], solution.judged)
        except Infeasible as error:
            failure = error
    if not pool.found and failure is not None:
        raise failure


def _is_small(a: Arrays) -> bool:
    return len(a.group_ptr) - 1 <= _LARGEST_PROOF


def _jobs(a: Arrays, work: float, seed: int, pool: "_Pool") -> Iterator[_Job]:
    starts = pool.found[:2]
    for c, warmth in enumerate(_WARMTHS):
        yield _Job(starts[c % len(starts)].schedule, tries_for(a, work), seed + c, warmth)


def _chain(a: Arrays, job: _Job) -> Schedule:
    return improve(a, job.start, tries=job.tries, seed=job.seed, warmth=job.warmth)


class _Pool:
    """Schedules found so far, the best first, each placement and sequence once."""

    def __init__(self, a: Arrays, watch: Watch) -> None:
        self.a = a
        self.watch = watch
        self.proved: dict[str, int] = {}
        self.found: list[Scored] = []
        self._seen: set[bytes] = set()

    @property
    def best(self) -> Scored:
        return self.found[0]

    def add(self, schedules: Iterable[Schedule], known: Judged | None = None) -> None:
        """Enter schedules; `known` is what the simulator said of the only one, if it was asked."""
        for schedule in schedules:
            key = schedule.device.tobytes() + schedule.sequence.tobytes()
            if key not in self._seen:
                self._seen.add(key)
                judged = known or judge(self.a, schedule)
                self.found.append(Scored(judged.score, schedule, judged))
        self.found.sort(key=lambda one: one.score)
        del self.found[_KEPT:]
        self.watch.note(self.best.score)
