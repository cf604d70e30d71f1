"""Synchronous SGD: every step, everyone takes the mean gradient, or what a robust rule makes of the gradients."""

from dataclasses import dataclass
from typing import Any, ClassVar

from baechi.replicas.methods.core import Mean, Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.robust import aggregated, check_rule

__all__ = ["SyncSgd", "SyncWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSgd(Descent):
    """x -= rate * Aggr(g_1, ..., g_n).

    Attributes:
        rule: Aggr; any of `baechi.replicas.rules`, and `mean` is one all-reduce.
        f: hostile workers that the rule is to survive.
    """

    name: ClassVar[str] = "sync-sgd"
    keeps_mean: ClassVar[bool] = True

    rule: str = "mean"
    f: int = 0

    def check(self) -> None:
        """As `Descent`."""
        check_rule(self.name, self.rule, self.f)

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return SyncWorker(o=self, **state)


@dataclass(slots=True, kw_only=True, eq=False)
class SyncWorker(Worker):
    """All workers' x are the same."""

    o: SyncSgd

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        g = oracle.gradient(self.x)
        if o.rule == "mean":
            g = yield Mean(g)
        else:
            g = yield from aggregated(o.rule, o.f, g)
        self.x -= o.rate(t) * o.direction(self, g)
