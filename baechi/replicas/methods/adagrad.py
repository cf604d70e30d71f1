"""AdaGrad, synchronous: each element's rate falls with the squares of its mean gradients (Duchi et al., 2011)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.core import Mean, Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent

__all__ = ["AdaGrad", "AdaGradWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaGrad(Descent):
    """g = mean_i g_i; B2 += g * g; x -= rate * g / sqrt(B2 + eps^2).

    Attributes:
        eps: is squared.
        initial: what B2 begins with.
    """

    name: ClassVar[str] = "adagrad"

    eps: float = 1e-7
    initial: float = 1.0

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(0, "eps", "initial")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        x = state["x"]
        return AdaGradWorker(o=self, b2=x.new_full((len(x),), self.initial), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class AdaGradWorker(Worker):
    """x and the accumulator, the same on all workers."""

    o: AdaGrad
    b2: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        g = self.o.direction(self, (yield Mean(oracle.gradient(self.x))))
        self.b2 += g * g
        self.x -= self.o.rate(t) * g / (self.b2 + self.o.eps**2).sqrt()
