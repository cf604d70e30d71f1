"""How far a search is, when it has to stop, and the best that it has."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Progress", "Watch", "is_interrupt"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a search has at one moment, in ticks.

    Attributes:
        seconds: since it began.
        ticks: objective of the best schedule that fits; None without one.
        bound: what none can beat.
    """

    seconds: float
    ticks: int | None
    bound: int

    @property
    def gap(self) -> float | None:
        """How far the best is above the bound, as a fraction of the bound; None without one."""
        if self.ticks is None:
            return None
        return self.ticks / self.bound - 1 if self.bound > 0 else float(self.ticks > 0)


@dataclass
class Watch:
    """Follows one search.

    Args:
        show: called with every progress.
        bound: a lower bound of the objective in ticks.
        budget: seconds after which to stop; None for no limit.
        gap: stop at this distance from the bound.
    """

    show: Callable[[Progress], None] | None = None
    bound: int = 0
    budget: float | None = None
    gap: float = 0.0
    ticks: int | None = None
    interrupted: bool = False
    began: float = field(default_factory=time.monotonic)

    def note(self, score: tuple[int, int]) -> None:
        """Take in the `score` of a schedule."""
        if score[0] == 0 and (self.ticks is None or score[1] < self.ticks):
            self.ticks = score[1]
        if self.show is not None:
            self.show(self.progress)

    def prove(self, bound: int) -> None:
        """Take in a lower bound in ticks."""
        self.bound = max(self.bound, bound)

    @property
    def progress(self) -> Progress:
        """Where it stands."""
        return Progress(time.monotonic() - self.began, self.ticks, self.bound)

    @property
    def seconds_left(self) -> float | None:
        """Until the budget is spent; None without one."""
        return None if self.budget is None else max(0.0, self.budget - self.progress.seconds)

    def is_near(self, gap: float) -> bool:
        """Whether the best is no farther from the bound than this fraction of it."""
        known = self.progress.gap
        return known is not None and known <= gap

    @property
    def done(self) -> bool:
        """Whether the time is up or the best is good enough."""
        return self.seconds_left == 0.0 or self.is_near(self.gap)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error began as Ctrl-C, which compiled code wraps in others, perhaps more than once."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
