"""Local SGD: H steps alone, then the mean of the models."""

from dataclasses import dataclass
from typing import Any, ClassVar

from baechi.replicas.methods.core import Mean, Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent

__all__ = ["LocalSgd", "LocalWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSgd(Descent):
    """x_i -= rate * g_i; every H steps x_i = mean_j x_j. Momentum is each worker's own, and is not averaged.

    Attributes:
        h: H.
    """

    name: ClassVar[str] = "local-sgd"
    keeps_mean: ClassVar[bool] = True

    h: int = 8

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return LocalWorker(o=self, **state)


@dataclass(slots=True, kw_only=True, eq=False)
class LocalWorker(Worker):
    """The models are the same after every H steps."""

    o: LocalSgd

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        self.x -= self.o.rate(t) * self.o.direction(self, oracle.gradient(self.x))
        if (t + 1) % self.o.h == 0:
            self.x.copy_((yield Mean(self.x)))
