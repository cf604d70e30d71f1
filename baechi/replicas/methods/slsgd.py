"""SLSGD: secure local SGD; the server moves by alpha to a trimmed mean of some clients' models (Xie et al., 2019)."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.core import Oracle, Request, Worker
from baechi.replicas.methods.fedavg import FedAvg, FedAvgWorker
from baechi.replicas.methods.robust import aggregated

__all__ = ["Slsgd", "SlsgdWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slsgd(FedAvg):
    """x = (1 - alpha) x + alpha Aggr(x_i of the round's clients): option I the mean, option II a trimmed mean.

    alpha=1 and b=0 are FedAvg, but that the mean is a plain one where `weights` do not say otherwise. On one quadratic
    whose steps contract by c, with k of n clients drawn each round and optima of variance s^2, x has the variance
    alpha^2 (1-c)^2 s^2/k (1-k/n) / (1-r^2), r = 1 - alpha (1-c).

    Attributes:
        alpha: how far the server moves, above 0 to 1.
        b: models trimmed at each end of each coordinate; 0 is the mean.
        alpha_milestones: rounds after each of which alpha is multiplied by `alpha_decay`.
        alpha_decay: by what.
    """

    name: ClassVar[str] = "slsgd"

    weights: tuple[float, ...] = (1.0,)
    alpha: float = 0.8
    b: int = 0
    alpha_milestones: tuple[int, ...] = ()
    alpha_decay: float = 0.9

    def check(self) -> None:
        """As `Descent`."""
        FedAvg.check(self)
        self.at_least(0, "b")
        if self.b and self.weights != (1.0,):
            raise self.out_of_range("a trimmed mean with weights", "b=0 or weights=1")
        if not 0 < self.alpha <= 1:
            raise self.out_of_range(f"alpha is {self.alpha:g}", "more than 0, 1 at most")
        if self.sample and 2 * self.b >= self.sample:
            raise self.out_of_range(f"b is {self.b} of {self.sample} sampled clients", "less than half")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        if 2 * self.b >= state["count"]:
            raise self.out_of_range(f"b is {self.b} of {state['count']} clients", "less than half")
        return SlsgdWorker(o=self, served=state["x"].clone(), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class SlsgdWorker(FedAvgWorker):
    """As that of FedAvg."""

    o: Slsgd

    def aggregate(self, round: int, active: bool, oracle: Oracle) -> Generator[Request, Tensor, Tensor]:
        """The server's next model; it stays where it is when too few clients are up to trim b at each end."""
        o = self.o
        if 2 * o.b >= len(self.clients):
            return self.served
        if o.b:
            found = yield from aggregated("trimmed-mean", o.b, self.x, active)
        else:
            found = yield from FedAvgWorker.aggregate(self, round, active, oracle)
        alpha = o.alpha * o.alpha_decay ** sum(round >= m for m in o.alpha_milestones)
        return found.clone() if alpha == 1 else self.served + alpha * (found - self.served)
