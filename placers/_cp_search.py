"""The search for a proved schedule: ever longer runs of CP-SAT, each knowing what the last one found."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from baechi.cost.problem import LATENCY, PARALLEL, UNLIMITED_CORES, Arrays, Ints
from baechi.placers._cp_lanes import share_lanes
from baechi.placers._cp_latency import Latency
from baechi.placers._cp_load import Load
from baechi.placers._cp_machines import Machines, is_pure
from baechi.placers._cp_memory import can_bind, hold
from baechi.placers._cp_net import Net, net_of, slowest
from baechi.placers._cp_place import Placement
from baechi.placers._cp_regions import part_of, regions
from baechi.placers._cp_solve import Answer, Effort, ask
from baechi.placers._cp_windows import least_horizon, windows
from baechi.placers.watch import is_interrupt
from baechi.sim.evaluate import Schedule, evaluate, score

__all__ = ["Progress", "Proof", "Search", "prove"]

Progress = Callable[[int, int], None]
"""Told the objective of the best schedule that fits and the bound, in ticks."""

_FIRST_RUN = 1.0  # in the solver's deterministic time, a second or two
_ALONE = 4.0  # runs up to this length have one thread, and so the same end each time
_RUNS_OF_A_REGION = 2
_PRECISION = 1000
_NEAR = 1.01  # times the bound, from which on the best schedule itself is what is to be refuted
_STEP, _LEAST_STEP = 0.25, 0.02  # of the way from the bound to the best
_UNDECIDED = 2  # runs that take too much work, after which it takes longer ones
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


def prove(
    a: Arrays,
    start: Schedule,
    gap: float,
    bound: int,
    *,
    seconds: float,
    workers: int,
    seed: int,
    on_progress: Progress | None = None,
) -> Proof:
    """Search from a schedule for so many seconds; Ctrl-C ends it early. See `Search` and `Effort`."""
    search = Search(a, start, gap, bound, Effort(time.monotonic() + seconds, workers, seed), on_progress)
    try:
        search.run()
    except KeyboardInterrupt:
        pass
    except SystemError as error:
        if not is_interrupt(error):
            raise
    return search.proof


@dataclass
class Search:
    """The best schedule so far, the bound so far, and how to improve both.

    Args:
        a: the problem.
        best: where to start.
        gap: fraction above the bound that is good enough.
        bound: ticks that are known to be a lower bound.
        effort: what the search may cost.
        on_progress: told of every change.
    """

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
    pure: bool = field(init=False)
    stopped: bool = field(init=False, default=False)
    step: dict[bool, float] = field(init=False)

    def __post_init__(self) -> None:
        self.least = np.zeros((len(self.a.rank), len(self.a.rank)), np.int64)
        self.step = {True: _STEP, False: _STEP}
        self.excess, self.ticks = score(self.a, self.best)
        self.pure = is_pure(self.a, net_of(self.a, 1, self.least)) and not can_bind(self.a)

    @property
    def proof(self) -> Proof:
        """What has been found and proved."""
        feasible = self.excess == 0
        proved = self.bound >= self.ticks if feasible else self.exhausted
        return Proof(self.best, self.bound, proved, feasible)

    @property
    def closed(self) -> bool:
        """Whether there is nothing left to gain."""
        if self.excess > 0:
            return self.exhausted
        return self.ticks <= self.bound * (1 + self.gap) or self.bound >= self.ticks

    def run(self) -> None:
        """Learn what parts of the graph tell, then solve all of it."""
        self._measure_regions()
        if not self.stopped:
            self.improve()

    def improve(self, runs: int = 1000) -> None:
        """Ask the solver for ever longer, each time with what the best schedule and the bound so far imply.

        Args:
            runs: how often at most.
        """
        work = _FIRST_RUN
        for k in range(runs):
            self._climb(work)
            if self.closed or self.stopped or self.effort.left <= 0:
                return
            before = self.ticks
            moments_only = self.pure and k % 2 == 1  # the one finds more, the other proves more
            answer = self._ask(work, moments_only, self.ticks - 1 if self.excess == 0 else _longest(self.a))
            self.stopped = answer is not None and answer.stopped
            if answer is None or answer.stopped or (answer.ended and self.ticks == before and not moments_only):
                return
            work *= 2 if self.ticks < before or moments_only else 4

    def _climb(self, work: float) -> None:
        """Refute ever longer steps, until some take too much work or one is found; first without contention and memory.

        The shorter the step, the more has to share a device or cannot, and the sooner that is refuted
        (destructive improvement; Klein and Scholl 1999). So after one that takes too much work a shorter one is tried.
        """
        if self.excess > 0 or self.a.objective != LATENCY:
            return
        eased = self.a.contention != PARALLEL or can_bind(self.a)
        for easier in (True, False) if eased else (False,):
            undecided, known = 0, (-1, -1)
            while undecided < _UNDECIDED and known != (self.bound, self.ticks) and self._is_far:
                known = self.bound, self.ticks
                most = self.bound + int((self.ticks - self.bound) * self.step[easier])
                answer = self._ask(work, self.pure, most, easier=easier)
                self.stopped = answer is not None and answer.stopped
                if self.stopped:
                    return
                if answer is not None and not answer.ended:
                    undecided, known = undecided + 1, (-1, -1)
                    self.step[easier] = max(_LEAST_STEP, self.step[easier] / 2)

    @property
    def _is_far(self) -> bool:
        return self.ticks > self.bound * _NEAR and self.effort.left > 0

    def _measure_regions(self) -> None:
        """Solve the parts with one entry and one exit, the smaller ones first: sums of them bound the whole."""
        if self.a.objective != LATENCY:
            return
        parts = list(regions(self.a, len(self.a.rank) - 1))
        for ops in parts:
            part = part_of(self.a, ops)
            alone = Schedule(np.zeros(len(ops), np.int64), part.order)
            search = Search(part, alone, 0.0, 0, self.effort, None)
            search.least = self.least[np.ix_(ops, ops)]
            search.improve(runs=_RUNS_OF_A_REGION)
            self.stopped = search.stopped
            if self.stopped:
                return
            ends = int(part.ticks[0].max() + part.ticks[-1].max())
            self.least[ops[0], ops[-1]] = max(0, search.bound - ends)

    def _ask(self, work: float, moments_only: bool, most: int, *, easier: bool = False) -> Answer | None:
        """One run for schedules of at most so many ticks; None when windows alone refute them."""
        net = net_of(self.a, most, self.least)
        horizon = most // net.unit
        model = self._model(net, horizon, moments_only, easier)
        if model is None:
            self._prove(None, horizon, net)
            return None
        run, _ = evaluate(self.a, self.best)
        hints = model.hints(self.best.device, run) if run.done == len(self.a.rank) else ()
        loads = self.a.objective != LATENCY or can_bind(self.a)
        effort = self.effort if work > _ALONE else replace(self.effort, workers=1, relaxes=loads)
        answer = ask(
            model.model,
            hints,
            effort,
            work,
            lambda value: self._offer(model.schedule(value)),
            lambda units: self._raise(min(units, horizon + 1) * net.unit),
        )
        self._prove(answer.bound, horizon, net)
        return answer

    def _model(self, net: Net, horizon: int, moments_only: bool, easier: bool) -> Latency | Load | Machines | None:
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
        if moments_only:
            return Machines(net, w, low)
        model = Latency(Placement(net, w.label, w.allowed), w, low)
        if self.a.contention != PARALLEL and not easier:
            share_lanes(model)
        if can_bind(self.a) and not easier:
            hold(model)
        return model

    def _prove(self, units: int | None, horizon: int, net: Net) -> None:
        """Take over a bound of the model; None says that it has no solution of at most `horizon`."""
        if units is None and self.excess > 0:
            self.exhausted = True
        else:
            self._raise((horizon + 1 if units is None else min(units, horizon + 1)) * net.unit)

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
        if self.on_progress is not None and self.excess == 0:
            self.on_progress(self.ticks, self.bound)


def _longest(a: Arrays) -> int:
    """Ticks that no plan exceeds: all ops and all transfers one after the other, as slow as shared cores make them."""
    alone = int(a.ticks.max(axis=1).sum() + slowest(a).sum() * len(a.cap)) + 1
    shared = (a.cores[a.host] < UNLIMITED_CORES).any()
    return alone * int(a.threads.sum() + len(a.t_op) * len(a.cap)) if shared else alone
