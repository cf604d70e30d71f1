"""QSparse-local-SGD: H steps alone, then the compressed change, with error feedback (Basu et al., NeurIPS 2019)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.compress import compressor
from baechi.replicas.methods.core import Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.feedback import contracting, mean_compressed

__all__ = ["QsparseLocalSgd", "QsparseWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QsparseLocalSgd(Descent):
    """x_i -= rate * g_i; every H steps v_i = e_i + x - x_i, x -= mean_j C(v_j), e_i = v_i - C(v_i), x_i = x.

    Attributes:
        c: the compressor.
        h: H.
    """

    name: ClassVar[str] = "qsparse-local-sgd"

    c: str = "random-block:4"
    h: int = 8

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")
        contracting(self.name, "c", self.c)

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        x = state["x"]
        return QsparseWorker(o=self, e=x.new_zeros(len(x)), agreed=x.clone(), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class QsparseWorker(Worker):
    """Besides its own model x, the agreed one and the error."""

    o: QsparseLocalSgd
    e: Tensor
    agreed: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        self.x -= o.rate(t) * o.direction(self, oracle.gradient(self.x))
        if (t + 1) % o.h:
            return
        v = self.e + self.agreed - self.x
        mean, own = yield from mean_compressed(v, compressor(o.c), self.sizes, self.key(t))
        self.e.copy_(v - own)
        self.agreed -= mean
        self.x.copy_(self.agreed)
