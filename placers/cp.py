"""`exact`: constraint programming, which goes on until its schedule is proved to be the best there is."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from baechi.cost.problem import LATENCY, Arrays, Ints, Problem
from baechi.errors import Infeasible
from baechi.placers._cp_latency import Latency
from baechi.placers._cp_load import Load
from baechi.placers._cp_memory import can_bind, hold
from baechi.placers._cp_net import Net, net_of, slowest
from baechi.placers._cp_place import Placement
from baechi.placers._cp_regions import part_of, regions
from baechi.placers._cp_solve import Answer, Effort, ask
from baechi.placers._cp_windows import least_horizon, windows
from baechi.placers.base import Placer, Solution
from baechi.placers.portfolio import Auto
from baechi.placers.variants import Variant
from baechi.placers.watch import Watch
from baechi.sim.evaluate import Schedule, evaluate, score

__all__ = ["Exact", "Proof", "solve_exact"]

Progress = Callable[[int, int], None]
"""Told the objective of the best schedule and the bound, in ticks."""

_FIRST_SLICE = 2.0
_PRECISION = 1000
_REGIONS = 0.4  # of the time that is left
_NO_TICKS = 1 << 62


@dataclass(frozen=True, slots=True)
class Proof:
    """The best schedule that was found and how good any can be.

    Attributes:
        schedule: the best by `score`.
        bound: ticks of the objective that no plan can beat.
        proved: the schedule fits and none is better, or it does not and none fits.
        feasible: whether the schedule fits; false and `proved`: no plan fits.
    """

    schedule: Schedule
    bound: int
    proved: bool
    feasible: bool


def solve_exact(
    a: Arrays,
    start: Schedule,
    *,
    seconds: float,
    gap: float = 0.0,
    workers: int = 2,
    seed: int = 0,
    bound: int = 0,
    on_progress: Progress | None = None,
) -> Proof:
    """Search for the best schedule of a problem, and prove that it is.

    Args:
        a: the problem; its objective is the makespan of one step, or the highest load of a device.
        start: a schedule to be better than; it need not fit.
        seconds: after which to stop.
        gap: stop as soon as the objective is at most this fraction above the bound.
        workers: threads of the solver.
        seed: of its random choices.
        bound: ticks that are known to be a lower bound.
        on_progress: told (objective, bound) in ticks when one of them changes.

    Returns:
        The best schedule, which may be `start`. Ctrl-C stops the search and returns it too.
    """
    search = _Search(a, start, gap, bound, Effort(time.monotonic() + seconds, workers, seed), on_progress)
    search.run()
    return search.proof


@dataclass
class _Search:
    a: Arrays
    best: Schedule
    gap: float
    bound: int
    effort: Effort
    on_progress: Progress | None
    excess: int = field(init=False)
    ticks: int = field(init=False)
    exhausted: bool = field(init=False, default=False)
    least: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.least = np.zeros((len(self.a.rank), len(self.a.rank)), np.int64)
        self.excess, self.ticks = score(self.a, self.best)

    @property
    def proof(self) -> Proof:
        feasible = self.excess == 0
        proved = self.bound >= self.ticks if feasible else self.exhausted
        return Proof(self.best, self.bound, proved, feasible)

    @property
    def closed(self) -> bool:
        if self.excess > 0:
            return self.exhausted
        return self.ticks <= self.bound * (1 + self.gap) or self.bound >= self.ticks

    def run(self) -> None:
        """Learn what parts of the graph tell, then solve all of it."""
        self._measure_regions()
        self.improve()

    def improve(self) -> None:
        """Ask the solver for ever longer, each time with what the best schedule so far implies."""
        seconds = _FIRST_SLICE
        while not self.closed and self.effort.left > 0:
            before = self.ticks
            answer = self._ask(seconds)
            if answer is None or answer.stopped:
                return
            if answer.ended and self.ticks == before:
                return
            seconds *= 2 if self.ticks < before else 4

    def _measure_regions(self) -> None:
        """Solve the parts with one entry and one exit, the smaller ones first: sums of them bound the whole."""
        if self.a.objective != LATENCY:
            return
        parts = list(regions(self.a, len(self.a.rank) - 1))
        for k, ops in enumerate(parts):
            part = part_of(self.a, ops)
            alone = Schedule(np.zeros(len(ops), np.int64), part.order)
            seconds = self.effort.left * _REGIONS / (len(parts) - k)
            effort = replace(self.effort, deadline=time.monotonic() + seconds)
            search = _Search(part, alone, 0.0, 0, effort, None)
            search.least = self.least[np.ix_(ops, ops)]
            search.improve()
            ends = int(part.ticks[0].max() + part.ticks[-1].max())
            self.least[ops[0], ops[-1]] = max(0, search.bound - ends)

    def _ask(self, seconds: float) -> Answer | None:
        """One run for schedules that are better than the best; None when windows alone refute them."""
        most = self.ticks - 1 if self.excess == 0 else _longest(self.a)
        net = net_of(self.a, most, self.least)
        horizon = most // net.unit
        model = self._model(net, horizon)
        if model is None:
            self._prove(None, horizon, net)
            return None
        run, _ = evaluate(self.a, self.best)
        hints = model.hints(self.best.device, run) if run.done == len(self.a.rank) else ()
        answer = ask(
            model.model,
            hints,
            self.effort,
            seconds,
            lambda value: self._offer(model.schedule(value)),
            lambda units: self._raise(units * net.unit),
        )
        self._prove(answer.bound, horizon, net)
        return answer

    def _model(self, net: Net, horizon: int) -> Latency | Load | None:
        low = self.bound // net.unit
        if self.a.objective != LATENCY:
            label = np.array(net.group, np.int64)
            allowed = np.ones((int(label.max()) + 1, net.devices), np.bool_)
            return Load(Placement(net, label, allowed), min(low, horizon), horizon)
        low = least_horizon(net, low, horizon, max(1, horizon // _PRECISION))
        self._raise(low * net.unit)
        w = windows(net, horizon)
        if w is None:
            return None
        model = Latency(Placement(net, w.label, w.allowed), w, low)
        if can_bind(self.a):
            hold(model)
        return model

    def _prove(self, units: int | None, horizon: int, net: Net) -> None:
        """Take over a bound of the model; None says that it has no solution of at most `horizon`."""
        if units is not None:
            self._raise(units * net.unit)
        elif self.excess > 0:
            self.exhausted = True
        else:
            self._raise(self.ticks)

    def _raise(self, ticks: int) -> None:
        limit = self.ticks if self.excess == 0 else _NO_TICKS
        if min(ticks, limit) > self.bound:
            self.bound = min(ticks, limit)
            self._tell()

    def _offer(self, schedule: Schedule) -> None:
        found = score(self.a, schedule)
        if found < (self.excess, self.ticks):
            self.best, (self.excess, self.ticks) = schedule, found
            self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.ticks, self.bound)


def _longest(a: Arrays) -> int:
    """Ticks that no eager schedule exceeds: all ops and all transfers to all devices, one after the other."""
    return int(a.ticks.max(axis=1).sum() + slowest(a).sum() * len(a.cap)) + 1


@dataclass(frozen=True)
class Exact(Placer):
    """The best plan there is, with the proof, of graphs with up to some dozens of colocation groups.

    Constraint programming starts from what `auto` finds. When it ends before the time is up, the
    plan is optimal, and the same on every run; a search that the clock stops returns the best so far.

    Args:
        seconds: for the search.
        gap: fraction above the bound that is good enough.
        workers: threads; one is deterministic as long as the clock does not stop it.
        groups: the most colocation groups that it looks at; a larger graph stays as `auto` placed it.
    """

    name: ClassVar[str] = "exact"
    seconds: float = 60.0
    gap: float = 0.0
    workers: int = 1
    groups: int = 60

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """What it finds for the problem as it is."""
        yield self.solve(problem, (Variant.plain(problem),), seed, Watch()).schedule

    def solve(self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch) -> Solution:
        """The best schedule, and the bound that the search has proved.

        Raises:
            Infeasible: B501 when it proves that no plan fits, B502 when it found none.
        """
        start, failure = self._start(problem, views, seed, watch)
        a = problem.arrays
        if len(a.group_ptr) - 1 > self.groups:
            if failure is not None:
                raise failure
            return Solution(start)
        proof = solve_exact(a, start, seconds=self.seconds, gap=self.gap, workers=self.workers, seed=seed)
        if proof.feasible:
            return Solution(proof.schedule, {"constraint programme": proof.bound})
        if proof.proved:
            raise Infeasible(
                "B501", "no plan fits: no way to spread what persists and what is made", help=_MORE_MEMORY, proved=True
            )
        raise failure or Infeasible("B502", "'exact' found no plan that fits", help=_MORE_MEMORY, proved=False)

    def _start(
        self, problem: Problem, views: Sequence[Variant], seed: int, watch: Watch
    ) -> tuple[Schedule, Infeasible | None]:
        """What `auto` finds, or, when it finds nothing that fits, everything on the largest device, and why."""
        try:
            return Auto().solve(problem, views, seed, watch).schedule, None
        except Infeasible as error:
            largest = int(problem.arrays.cap.argmax())
            return Schedule(np.full(len(problem.graph), largest, np.int64), problem.arrays.order), error


_MORE_MEMORY = "give the devices more memory, or use a smaller batch"
