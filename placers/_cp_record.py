"""What the search for a proved schedule knows: the best schedule so far, and the bound so far."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from baechi.cost.problem import Arrays
from baechi.sim.evaluate import Schedule, score

__all__ = ["Progress", "Proof", "Record"]

Progress = Callable[[int, int], None]
"""Told the objective of the best schedule that fits and the bound, in ticks."""

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


@dataclass
class Record:
    """Runs of the solver, several at a time perhaps, add to it.

    Args:
        a: the problem.
        best: the schedule to begin with; it need not fit.
        gap: fraction above the bound that is good enough.
        bound: ticks that are known to be a lower bound.
        on_progress: told of every change.

    Attributes:
        excess: bytes by which the best schedule is over the caps.
        ticks: its objective.
        exhausted: whether it is proved that no schedule fits.
    """

    a: Arrays
    best: Schedule
    gap: float
    bound: int
    on_progress: Progress | None
    excess: int = field(init=False)
    ticks: int = field(init=False)
    exhausted: bool = field(init=False, default=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.excess, self.ticks = score(self.a, self.best)

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

    def offer(self, schedule: Schedule) -> None:
        """Keep a schedule if it is better than the best."""
        found = score(self.a, schedule)
        with self._lock:
            if found < (self.excess, self.ticks):
                self.best, (self.excess, self.ticks) = schedule, found
                self._tell()

    def prove(self, ticks: int) -> None:
        """Take over a lower bound of all schedules that are better than the best; if that fits, it is one of its bounds."""
        with self._lock:
            limit = self.ticks if self.excess == 0 else _NO_TICKS
            if min(ticks, limit) > self.bound:
                self.bound = min(ticks, limit)
                self._tell()

    def _tell(self) -> None:
        if self.on_progress is not None and self.excess == 0:
            self.on_progress(self.ticks, self.bound)
