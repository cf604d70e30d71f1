"""FedAvg: a server's model goes to some clients, and the mean of what they make of it comes back (McMahan, 2017)."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.core import Mean, Oracle, Request, Step, Worker
from baechi.replicas.methods.descent import Descent
from baechi.replicas.methods.links import Links, sampled

__all__ = ["FedAvg", "FedAvgWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg(Descent):
    """In each round of H steps, A = the chosen clients whose links are up; x = sum_A n_k x_k / sum_A n_k.

    x_k is what H local steps from x make at client k, which has n_k examples. When A is empty nothing happens. With
    links that are up with different probabilities p_i it goes to sum_i u_i E[n_i 1{i in A} / sum_A n] / P(A is not
    empty), not to the weighted mean of the clients' optima u_i.

    Attributes:
        h: H, local steps of a round.
        sample: clients chosen for a round; 0 is all.
        weights: n_k, of each client; repeated when there are more clients. `1` is the plain mean, none at all the
            examples that each client has.
        links: as `Links.kind`, and `p`, `memory`, `period`, `fluctuation` and `wave` as there.
    """

    name: ClassVar[str] = "fedavg"

    h: int = 5
    sample: int = 0
    weights: tuple[float, ...] = ()
    links: str = "always"
    p: tuple[float, ...] = (0.5,)
    memory: float = 0.9
    period: int = 10
    fluctuation: float = 0.0
    wave: int = 40

    @property
    def uplinks(self) -> Links:
        """Of the clients."""
        return Links(self.links, self.p, self.memory, self.period, self.fluctuation, self.wave)

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")
        self.at_least(0, "sample")
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise self.out_of_range(f"weights are {','.join(f'{w:g}' for w in self.weights)}", "each more than 0")
        self.uplinks.check(self.name)

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        return FedAvgWorker(o=self, served=state["x"].clone(), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class FedAvgWorker(Worker):
    """Besides its own model, the server's: everyone computes it alike."""

    o: FedAvg
    served: Tensor
    up: tuple[bool, ...] = ()
    clients: frozenset[int] = frozenset()

    @property
    def model(self) -> Tensor:
        """The server's."""
        return self.served

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        if t % o.h == 0:
            self._begin_round(t // o.h)
        active = self.index in self.clients
        if active:
            self.x -= o.rate(t) * o.direction(self, oracle.gradient(self.x))
        if (t + 1) % o.h == 0 and self.clients:
            self.served.copy_((yield from self.aggregate(t // o.h, active, oracle)))

    def aggregate(self, round: int, active: bool, oracle: Oracle) -> Generator[Request, Tensor, Tensor]:
        """The server's next model."""
        weights = self.o.weights
        if len(set(weights)) == 1:
            mean = yield Mean(self.x, active)
        else:
            own = weights[self.index % len(weights)] if weights else float(oracle.examples)
            mean = yield Mean(self.x, active, own)
        return mean

    def _begin_round(self, round: int) -> None:
        self.up = self.o.uplinks.up(self.seed, round, self.count, self.up)
        chosen = sampled(self.seed, round, self.count, self.o.sample)
        self.clients = frozenset(i for i in chosen if self.up[i])
        if self.index in self.clients:
            self.x.copy_(self.served)
            self.m = None
