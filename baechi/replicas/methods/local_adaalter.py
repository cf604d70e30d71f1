"""Local AdaAlter: H steps alone with a synchronised denominator, then models and accumulators (1911.09030)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.adaalter import AdaAlter
from baechi.replicas.methods.core import Mean, Oracle, Step, Worker

__all__ = ["LocalAdaAlter", "LocalAdaAlterWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAdaAlter(AdaAlter):
    """x_i -= rate * g_i / sqrt(B2 + t' eps^2); A2_i += g_i * g_i; every H steps the means of x and A2, and B2 = A2.

    t' counts the steps since the models were the same, from 1. It sends 2 / H of AdaGrad's bytes.

    Attributes:
        h: H.
        placeholder: `grows` for t' eps^2, the paper's, which stands for what the accumulator would have
            gained; `constant` for eps^2, as the authors' program has it, with eps=1e-7.
    """

    name: ClassVar[str] = "local-adaalter"

    h: int = 4
    placeholder: str = "grows"

    def check(self) -> None:
        """As `Descent`."""
        AdaAlter.check(self)
        self.at_least(1, "h")
        if self.placeholder not in ("grows", "constant"):
            raise self.out_of_range(f"placeholder is '{self.placeholder}'", "grows or constant")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        b2 = state["x"].new_full((len(state["x"]),), self.initial)
        return LocalAdaAlterWorker(o=self, b2=b2, a2=b2.clone(), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class LocalAdaAlterWorker(Worker):
    """x, what is divided by, and what is accumulated."""

    o: LocalAdaAlter
    b2: Tensor
    a2: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        g = o.direction(self, oracle.gradient(self.x))
        since = t % o.h + 1 if o.placeholder == "grows" else 1
        self.x -= o.rate(t) * g / (self.b2 + since * o.eps**2).sqrt()
        self.a2 += g * g
        if (t + 1) % o.h == 0:
            self.x.copy_((yield Mean(self.x)))
            self.a2.copy_((yield Mean(self.a2)))
            self.b2.copy_(self.a2)
