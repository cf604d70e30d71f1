"""CHOCO-SGD: gossip of compressed differences to what neighbours already know (Koloskova et al., ICML 2019)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baechi.replicas.compress import compressor
from baechi.replicas.compress.base import decode, encode
from baechi.replicas.methods.core import Oracle, Step, Swap, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.feedback import contracting
from baechi.replicas.methods.mixing import TOPOLOGIES, checked, mixing_matrix

__all__ = ["Choco", "ChocoWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choco(Descent):
    """x_i -= rate * g_i; q_i = C(x_i - xhat_i), told to neighbours; xhat_i += q_i; x_i += gamma sum_j w_ij xhat_j - xhat_i.

    The mean of the models is kept by the mixing. A gamma that is too large for the compressor diverges:
    the paper's condition is about gamma <= delta / 16.

    Attributes:
        c: the compressor.
        gamma: the consensus step.
        topology: one of ring, torus, complete.
        matrix: another mixing matrix instead, symmetric with rows that sum to 1.
        h: local steps before each exchange.
    """

    name: ClassVar[str] = "choco"
    keeps_mean: ClassVar[bool] = True

    c: str = "top-k:10"
    gamma: float = 0.1
    topology: str = "ring"
    matrix: tuple[tuple[float, ...], ...] = ()
    h: int = 1

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")
        contracting(self.name, "c", self.c)
        if not 0 < self.gamma < float("inf"):
            raise self.out_of_range(f"gamma is {self.gamma:g}", "more than 0")
        if self.topology not in TOPOLOGIES:
            raise self.out_of_range(f"no topology '{self.topology}'", "one of: " + ", ".join(TOPOLOGIES))

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return ChocoWorker(o=self, hat=state["x"].clone(), mixed=state["x"].clone(), row=self.row(**state), **state)

    def row(self, index: int, count: int, **_: Any) -> tuple[float, ...]:
        """A worker's row of the mixing matrix."""
        matrix = checked(self.name, self.matrix, count) if self.matrix else mixing_matrix(self.topology, count)
        return matrix[index]


@dataclass(slots=True, kw_only=True, eq=False)
class ChocoWorker(Worker):
    """Besides x: what all know of it, and the neighbours' such, mixed. All begin with the same x."""

    o: Choco
    hat: Tensor
    mixed: Tensor
    row: tuple[float, ...]

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        self.x -= o.rate(t) * o.direction(self, oracle.gradient(self.x))
        if (t + 1) % o.h:
            return
        c, key = compressor(o.c), self.key(t)
        sent = encode(c, self.x - self.hat, self.sizes, key)
        peers = tuple(j for j, w in enumerate(self.row) if w and j != self.index)
        heard = yield Swap(sent, peers)
        known = [decode(c, row, self.sizes, self.x.dtype, key) for row in (sent, *heard)]
        weights = self.x.new_tensor([self.row[j] for j in (self.index, *peers)])
        self.hat += known[0]
        self.mixed += weights @ torch.stack(known)
        self.x += self.towards(self.mixed - self.hat)

    def towards(self, apart: Tensor) -> Tensor:
        """How far to go to the neighbours, from r_i = sum_j w_ij xhat_j - xhat_i."""
        return self.o.gamma * apart
