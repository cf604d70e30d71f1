"""SGD with error feedback: what compression left out is added to the next step (Karimireddy et al., 2019)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.compress import compressor
from baechi.replicas.methods.core import Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.feedback import contracting, mean_compressed

__all__ = ["EfSgd", "EfWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EfSgd(Descent):
    """v_i = e_i + rate * g_i; x -= mean_j C(v_j); e_i = v_i - C(v_i).

    Attributes:
        c: the compressor; its bytes are sent every step.
    """

    name: ClassVar[str] = "ef-sgd"

    c: str = "random-block:32"

    def check(self) -> None:
        """As `Descent`."""
        contracting(self.name, "c", self.c)

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return EfWorker(o=self, e=state["x"].new_zeros(len(state["x"])), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class EfWorker(Worker):
    """All workers' x are the same; e is each one's own."""

    o: EfSgd
    e: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        v = self.e + o.rate(t) * o.direction(self, oracle.gradient(self.x))
        mean, own = yield from mean_compressed(v, compressor(o.c), self.sizes, self.key(t))
        self.x -= mean
        self.e.copy_(v - own)
