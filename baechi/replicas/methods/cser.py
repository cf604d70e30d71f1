"""CSER: communication-efficient SGD with error reset (Xie et al., NeurIPS 2020, algorithms 1 and 2).

Local models differ by their errors only: x_i - e_i is the same on all workers, and mean_i x_i is what SGD with the
mean gradient would have. Every H steps the errors are synchronised, in part.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.compress import compressor
from baechi.replicas.methods.core import Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.feedback import contracting, psync

__all__ = ["Cser", "CserWorker"]

_GRADIENTS, _ERRORS = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cser(Descent):
    """p_i, r_i = PSync(rate * g_i, C2); x_i -= p_i; e_i -= r_i; every H steps e' = PSync(e, C1), x_i += e'_i - e_i.

    With compressors of ratios R1 and R2 it sends 1 / R2 + 1 / (R1 H) of what synchronous SGD sends. What it loses
    against that comes from the errors, by which the models differ. In as many bytes of 32-bit numbers as the default
    `c1=sign:32 c2=none h=2` leaves far smaller ones, above all of embeddings, whose rows differ in size; but
    everyone's signs are gathered, where blocks are summed on the way.

    Attributes:
        c1: of the errors, every H steps.
        c2: of the gradients, every step; `none` and c1=identity are local SGD.
        h: H.
    """

    name: ClassVar[str] = "cser"
    keeps_mean: ClassVar[bool] = True

    c1: str = "random-block:8"
    c2: str = "random-block:64"
    h: int = 8

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")
        contracting(self.name, "c1", self.c1)
        contracting(self.name, "c2", self.c2, none=True)

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return CserWorker(o=self, e=state["x"].new_zeros(len(state["x"])), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class CserWorker(Worker):
    """Besides x, the error e."""

    o: Cser
    e: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        v = o.rate(t) * o.direction(self, oracle.gradient(self.x))
        p, r = yield from psync(v, compressor(o.c2), self.sizes, self.key(t, _GRADIENTS))
        self.x -= p
        self.e -= r
        if (t + 1) % o.h == 0:
            reset, left = yield from psync(self.e, compressor(o.c1), self.sizes, self.key(t, _ERRORS))
            self.x += reset - self.e
            self.e.copy_(left)
