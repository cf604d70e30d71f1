"""AdaAlter: AdaGrad that divides by the accumulator of the step before (Xie et al., 1911.09030)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.core import Mean, Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent

__all__ = ["AdaAlter", "AdaAlterWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaAlter(Descent):
    """x -= rate * mean_i(g_i) / sqrt(B2 + eps^2); B2 += mean_i(g_i * g_i).

    Attributes:
        eps: is squared.
        initial: what B2 begins with.
    """

    name: ClassVar[str] = "adaalter"

    eps: float = 1.0
    initial: float = 1.0

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(0, "eps", "initial")
        if not self.eps + self.initial:
            raise self.out_of_range("eps and initial are 0", "one of them more")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        x = state["x"]
        return AdaAlterWorker(o=self, b2=x.new_full((len(x),), self.initial), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class AdaAlterWorker(Worker):
    """x and the accumulator, the same on all workers."""

    o: AdaAlter
    b2: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        g = self.o.direction(self, oracle.gradient(self.x))
        mean = yield Mean(g)
        self.x -= self.o.rate(t) * mean / (self.b2 + self.o.eps**2).sqrt()
        self.b2 += yield Mean(g * g)
