"""The search for a proved schedule: ever longer runs of CP-SAT, each knowing what the last one found."""

import threading
import time
from dataclasses import replace
from itertools import count

import numpy as np

from baechi.cost.problem import LATENCY, PARALLEL, UNLIMITED_CORES, Arrays
from baechi.placers._cp_lanes import share_lanes
from baechi.placers._cp_latency import Latency
from baechi.placers._cp_load import Load
from baechi.placers._cp_machines import Machines, is_pure
from baechi.placers._cp_memory import can_bind, hold
from baechi.placers._cp_net import Net, net_of, slowest
from baechi.placers._cp_place import Placement
from baechi.placers._cp_record import Progress, Proof, Record
from baechi.placers._cp_regions import part_of, regions
from baechi.placers._cp_solve import Answer, Effort, ask
from baechi.placers._cp_windows import least_horizon, windows
from baechi.placers.watch import is_interrupt
from baechi.sim.evaluate import Schedule, evaluate

__all__ = ["Search", "prove"]

_FIRST_RUN = 1.0  # in the solver's deterministic time, a second or two
_ALONE = 4.0  # runs up to this length have one thread, and so the same end each time
_RUNS_OF_A_REGION = 2
_PRECISION = 1000
_NEAR = 1.01  # times the bound, from which on the best schedule itself is what is to be refuted
_STEP, _LEAST_STEP = 0.25, 0.1  # of the way from the bound to the best
_LITTLE = 0.25  # work of a run after which better schedules are looked for beside
_UNDECIDED = 2  # runs that take too much work, after which it takes longer ones
_REACHES = (1.0, 0.25, 0.5)  # of the way from the bound to the best, where better schedules are looked for


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
    """Search from a schedule for so many seconds; Ctrl-C ends it early. See `Record` and `Effort`."""
    record = Record(a, start, gap, bound, on_progress)
    try:
        Search(record, Effort(time.monotonic() + seconds, workers, seed)).run()
    except KeyboardInterrupt:
        pass
    except SystemError as error:
        if not is_interrupt(error):
            raise
    return record.proof


class Search:
    """How to improve the best schedule and the bound of a record.

    Args:
        record: what is known; it grows.
        effort: what the search may cost.
    """

    def __init__(self, record: Record, effort: Effort) -> None:
        self.record, self.effort, self.a = record, effort, record.a
        self.least = np.zeros((len(self.a.rank), len(self.a.rank)), np.int64)
        self.pure = is_pure(self.a, net_of(self.a, 1, self.least)) and not can_bind(self.a)
        self.stopped = False
        self._step = _STEP
        self._over = threading.Event()
        self._beside: threading.Thread | None = None

    def run(self) -> None:
        """Learn what parts of the graph tell, then solve all of it."""
        self._measure_regions()
        if not self.stopped:
            try:
                self.improve(helped=self.effort.workers > 1)
            finally:
                self._over.set()
                if self._beside is not None:
                    self._beside.join()

    def improve(self, runs: int = 1000, *, helped: bool = False) -> None:
        """Ask the solver for ever longer, each time with what the best schedule and the bound so far imply.

        Args:
            runs: how often at most.
            helped: whether, when it gets hard, another thread may look for better schedules meanwhile.
        """
        work, best = _FIRST_RUN, self.record
        for k in range(runs):
            undecided = self._climb(work, helped)
            if best.closed or self.stopped or self.effort.left <= 0:
                return
            if undecided and self._beside is not None:
                work *= 2
                continue
            before = best.ticks
            moments_only = self.pure and k % 2 == 1  # the one finds more, the other proves more
            answer = self._ask(
                work, best.ticks - 1 if best.excess == 0 else _longest(self.a), moments_only=moments_only
            )
            if answer is None or self.stopped or (answer.ended and best.ticks == before and not moments_only):
                return
            work *= 2 if best.ticks < before or moments_only else 4

    def _climb(self, work: float, helped: bool) -> bool:
        """Refute ever longer steps, until some take too much work; says whether some did.

        The shorter the step, the more has to share a device or cannot, and the sooner that is refuted
        (destructive improvement; Klein and Scholl 1999). So after one that takes too much work a shorter one is tried.
        """
        if self.record.excess > 0 or self.a.objective != LATENCY:
            return False
        undecided, known = 0, (-1, -1)
        while self._is_far and undecided < _UNDECIDED:
            if self.stopped or known == (self.record.bound, self.record.ticks):
                return False
            known = self.record.bound, self.record.ticks
            answer = self._ask(work, self._between(self._step), moments_only=self.pure)
            if answer is not None and not answer.ended:
                undecided, known = undecided + 1, (-1, -1)
                self._step = max(_LEAST_STEP, self._step / 2)
            elif answer is None or answer.work < _LITTLE * work:
                self._step = min(_STEP, self._step * 2)
            if answer is not None and answer.work > _LITTLE and helped and self._beside is None:
                self._beside = threading.Thread(target=self._look_beside, daemon=True)
                self._beside.start()
        return undecided == _UNDECIDED

    def _look_beside(self) -> None:
        """Look for better schedules while steps are being refuted, now just below the best, now far below."""
        best = self.record
        for k in count():
            if best.closed or self._over.is_set() or self.effort.left <= 0:
                return
            most = self._between(_REACHES[k % len(_REACHES)])
            self._ask(_FIRST_RUN * 2 ** (k // len(_REACHES)), min(most, best.ticks - 1), beside=True, seed=k)

    @property
    def _is_far(self) -> bool:
        return self.record.ticks > self.record.bound * _NEAR and self.effort.left > 0

    def _between(self, reach: float) -> int:
        return self.record.bound + int((self.record.ticks - self.record.bound) * reach)

    def _measure_regions(self) -> None:
        """Solve the parts with one entry and one exit, the smaller ones first: sums of them bound the whole."""
        if self.a.objective != LATENCY:
            return
        parts = list(regions(self.a, len(self.a.rank) - 1))
        for ops in parts:
            part = part_of(self.a, ops)
            alone = Schedule(np.zeros(len(ops), np.int64), part.order)
            search = Search(Record(part, alone, 0.0, 0, None), self.effort)
            search.least = self.least[np.ix_(ops, ops)]
            search.improve(runs=_RUNS_OF_A_REGION)
            self.stopped = search.stopped
            if self.stopped:
                return
            ends = int(part.ticks[0].max() + part.ticks[-1].max())
            self.least[ops[0], ops[-1]] = max(0, search.record.bound - ends)

    def _ask(
        self, work: float, most: int, *, moments_only: bool = False, beside: bool = False, seed: int = 0
    ) -> Answer | None:
        """One run for schedules of at most so many ticks; None when windows alone refute them."""
        net = net_of(self.a, most, self.least)
        horizon = most // net.unit
        model = self._model(net, horizon, moments_only)
        if model is None:
            self._prove(None, horizon, net)
            return None
        best = self.record.best
        run, _ = evaluate(self.a, best)
        hints = model.hints(best.device, run) if run.done == len(self.a.rank) else ()

        def over() -> bool:
            return self.record.closed or (beside and self._over.is_set())

        answer = ask(
            model.model,
            hints,
            self._effort(work, beside, seed),
            work,
            lambda value: self.record.offer(model.schedule(value)),
            lambda units: self.record.prove(min(units, horizon + 1) * net.unit),
            over,
        )
        self.stopped |= answer.stopped
        self._prove(answer.bound, horizon, net)
        return answer

    def _effort(self, work: float, beside: bool, seed: int) -> Effort:
        """One thread for a short run, all for a longer one; when some look beside, half are theirs."""
        half = self.effort.workers // 2
        workers = half if beside else self.effort.workers - (half if self._beside is not None else 0)
        loads = self.a.objective != LATENCY or can_bind(self.a)
        return replace(
            self.effort, workers=workers if work > _ALONE else 1, seed=self.effort.seed + seed, relaxes=loads
        )

    def _model(self, net: Net, horizon: int, moments_only: bool) -> Latency | Load | Machines | None:
        low = self.record.bound // net.unit
        if self.a.objective != LATENCY:
            label = np.array(net.group, np.int64)
            allowed = np.ones((int(label.max()) + 1, net.devices), np.bool_)
            return Load(Placement(net, label, allowed), min(low, horizon), horizon)
        low = least_horizon(net, low, horizon, max(1, horizon // _PRECISION))
        self.record.prove(low * net.unit)
        w = windows(net, horizon)
        if w is None:
            return None
        if moments_only:
            return Machines(net, w, low)
        model = Latency(Placement(net, w.label, w.allowed), w, low)
        if self.a.contention != PARALLEL:
            share_lanes(model)
        if can_bind(self.a):
            hold(model)
        return model

    def _prove(self, units: int | None, horizon: int, net: Net) -> None:
        """Take over a bound of the model; None says that it has no solution of at most `horizon`."""
        if units is None and self.record.excess > 0:
            self.record.exhausted = True
        else:
            self.record.prove((horizon + 1 if units is None else min(units, horizon + 1)) * net.unit)


def _longest(a: Arrays) -> int:
    """Ticks that no plan exceeds: all ops and all transfers one after the other, as slow as shared cores make them."""
    alone = int(a.ticks.max(axis=1).sum() + slowest(a).sum() * len(a.cap)) + 1
    shared = (a.cores[a.host] < UNLIMITED_CORES).any()
    return alone * int(a.threads.sum() + len(a.t_op) * len(a.cap)) if shared else alone
