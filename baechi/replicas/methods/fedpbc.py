"""FedPBC: the server broadcasts at the end of a round, to those that it heard (Xiang et al., 2404.10091).

That is gossip with W = 1 / |A| among the heard and the identity elsewhere, which is doubly stochastic, whatever the
links do: the mean of the clients' models is what it would be without any links that fail.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.core import Mean, Oracle, Step, Worker
from baechi.replicas.methods.fedavg import FedAvg

__all__ = ["FedPbc", "FedPbcWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedPbc(FedAvg):
    """Every client takes H steps from its own x_i; then x_i = mean_A x for those in A, whose links are up.

    The mean of the clients' models is evaluated. Its authors' rate is that of horizon = 50 h steps, and their links
    have a `fluctuation` of 0.1, 0.2 or 0.4.
    """

    name: ClassVar[str] = "fedpbc"
    keeps_mean: ClassVar[bool] = True

    weights: tuple[float, ...] = (1.0,)
    links: str = "bernoulli"

    def check(self) -> None:
        """As `Descent`."""
        FedAvg.check(self)
        if self.weights != (1.0,):
            raise self.out_of_range("weights, which would move the mean of the clients' models", "weights=1")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return FedPbcWorker(o=self, **state)


@dataclass(slots=True, kw_only=True, eq=False)
class FedPbcWorker(Worker):
    """Its own model; and whose links are up, which everyone knows."""

    o: FedPbc
    up: tuple[bool, ...] = ()

    @property
    def model(self) -> Tensor:
        """Its own."""
        return self.x

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        self.x -= o.rate(t) * o.direction(self, oracle.gradient(self.x))
        if (t + 1) % o.h:
            return
        self.up = o.uplinks.up(self.seed, t // o.h, self.count, self.up)
        if any(self.up):
            mean = yield Mean(self.x, self.up[self.index])
            if self.up[self.index]:
                self.x.copy_(mean)
