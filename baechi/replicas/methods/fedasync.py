"""FedAsync: a server mixes in each client's model as it comes, the less the staler it is (Xie et al., 1903.03934).

Server and client are state machines. Here the server's wires are simulated as its authors do: each update begins
from a version that is up to `max_delay` behind.
"""

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.core import Oracle, Runner, Worker
from baechi.replicas.methods.descent import Descent

if TYPE_CHECKING:
    from baechi.replicas.methods.hostile import Hostile
    from baechi.replicas.methods.lockstep import Costs
    from baechi.replicas.problems.base import Problem

__all__ = ["WEIGHTS", "Client", "FedAsync", "Server", "staleness_weight"]

WEIGHTS = ("constant", "polynomial", "hinge", "exponential", "sigmoid")
"""What s can be."""


def staleness_weight(kind: str, delay: float, a: float = 0.5, b: float = 4.0) -> float:
    """s(d), in which alpha s(d) is how far the server moves; 1 for a model that is not stale.

    Args:
        kind: `constant` 1; `polynomial` (d + 1)^-a; `hinge` 1 up to b and then 1 / (a (d - b) + 1);
            `exponential` e^(-a d); `sigmoid` (1 + e^(-a b)) / (1 + e^(a (d - b))).
        delay: d, versions that the server has gone on.
        a: how steep.
        b: how many versions do no harm (hinge), or where it falls fastest (sigmoid).

    Example:
        >>> [round(staleness_weight("polynomial", d), 4) for d in (0, 1, 4, 8, 16)]
        [1.0, 0.7071, 0.4472, 0.3333, 0.2425]
    """
    if kind == "polynomial":
        return float((delay + 1) ** -a)
    if kind == "hinge":
        return 1.0 if delay <= b else 1 / (a * (delay - b) + 1)
    if kind == "exponential":
        return exp(-a * delay)
    if kind == "sigmoid":
        return (1 + exp(-a * b)) / (1 + exp(min(a * (delay - b), 700.0)))
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAsync(Descent):
    """Client: from (x_v, v), H steps on f + rho/2 |x - x_v|^2. Server: x = (1 - w) x + w x_new, w = alpha s(t - v).

    Attributes:
        alpha: above 0, 1 at most.
        weight: s; one of `WEIGHTS`, with `a` and `b` as `staleness_weight` has them.
        a: how steep s is.
        b: where it falls.
        rho: of the proximal term.
        h: H.
        max_delay: the simulated staleness is uniform in 0 to this.
        alpha_milestones: updates after each of which alpha is halved.
    """

    name: ClassVar[str] = "fedasync"

    alpha: float = 0.6
    weight: str = "polynomial"
    a: float = 0.5
    b: float = 4.0
    rho: float = 0.005
    h: int = 8
    max_delay: int = 4
    alpha_milestones: tuple[int, ...] = ()

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")
        self.at_least(0, "max_delay", "rho", "a", "b")
        if self.weight not in WEIGHTS:
            raise self.out_of_range(f"no weight '{self.weight}'", "one of: " + ", ".join(WEIGHTS))
        if not 0 < self.alpha <= 1:
            raise self.out_of_range(f"alpha is {self.alpha:g}", "more than 0, 1 at most")

    def begin(self, **state: Any) -> Worker:
        """A client."""
        return Client(o=self, origin=state["x"].clone(), **state)

    def server(self, x0: Tensor) -> "Server":
        """The server, with the first version."""
        return Server(self, x0.detach().clone())

    def runner(
        self,
        problem: "Problem",
        workers: int,
        seed: int,
        costs: "Costs | None" = None,
        hostile: "Hostile | None" = None,
    ) -> Runner:
        """As `Descent`, but for attacks, which are on rounds: there are none."""
        if hostile is not None:
            raise self.out_of_range("no attack on a method without rounds", "another method")
        from baechi.replicas.methods.delayed import Delayed

        return Delayed(self, problem, workers, seed, costs)


@dataclass(slots=True, eq=False)
class Server:
    """The model, its version, and how stale each update was.

    Attributes:
        o: the options.
        x: (d,).
        version: updates so far.
    """

    o: FedAsync
    x: Tensor
    version: int = 0

    def pull(self) -> tuple[Tensor, int]:
        """A copy of the model, and its version."""
        return self.x.clone(), self.version

    def push(self, new: Tensor, version: int) -> float:
        """Mix in a client's model.

        Args:
            new: (d,); one with NaN or infinities is left out.
            version: that it began from.

        Returns:
            Its weight; 0 when it was left out.
        """
        if not new.isfinite().all():
            return 0.0
        o = self.o
        alpha = o.alpha * 0.5 ** sum(self.version >= m for m in o.alpha_milestones)
        weight = alpha * staleness_weight(o.weight, self.version - version, o.a, o.b)
        self.x += weight * (new - self.x)
        self.version += 1
        return weight


@dataclass(slots=True, kw_only=True, eq=False)
class Client(Worker):
    """One client between its local steps.

    Attributes:
        origin: the model that it began from.
        version: of that.
        done: local steps since.
        total: local steps ever.
    """

    o: FedAsync
    origin: Tensor
    version: int = 0
    done: int = 0
    total: int = 0

    def begin(self, x: Tensor, version: int) -> None:
        """Start from what the server gave."""
        self.x.copy_(x)
        self.origin.copy_(x)
        self.version, self.done, self.m = version, 0, None

    def local(self, oracle: Oracle) -> bool:
        """A local step; whether it was the last, and `x` is to be pushed."""
        g = oracle.gradient(self.x) + self.o.rho * (self.x - self.origin)
        self.x -= self.o.rate(self.total) * self.o.direction(self, g)
        self.done, self.total = self.done + 1, self.total + 1
        return self.done >= self.o.h
