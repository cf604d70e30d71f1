"""AdaGossip: CHOCO whose consensus step adapts to how far the neighbours are (Aketi et al., 2404.05919).

A step by element and by worker does not keep the mean of the models; CHOCO's does.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from baechi.replicas.methods.choco import Choco, ChocoWorker
from baechi.replicas.methods.core import Worker

__all__ = ["AdaGossip", "AdaGossipWorker"]

_TINY = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaGossip(Choco):
    """v_i = beta v_i + (1 - beta) r_i^2; x_i += min(1, gamma / (sqrt(v_i / (1 - beta^t)) + 1e-8)) * r_i.

    Attributes:
        beta: of the second moment.
        gamma: the consensus step before it is adapted.
    """

    name: ClassVar[str] = "adagossip"
    keeps_mean: ClassVar[bool] = False

    gamma: float = 1.0
    beta: float = 0.999

    def check(self) -> None:
        """As `Descent`."""
        Choco.check(self)
        if not 0 <= self.beta < 1:
            raise self.out_of_range(f"beta is {self.beta:g}", "0 to below 1")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        x = state["x"]
        row = self.row(**state)
        return AdaGossipWorker(o=self, hat=x.clone(), mixed=x.clone(), row=row, v=x.new_zeros(len(x)), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class AdaGossipWorker(ChocoWorker):
    """Besides CHOCO's: the second moment, and how many exchanges it has seen."""

    o: AdaGossip
    v: Tensor
    seen: int = 0

    def towards(self, apart: Tensor) -> Tensor:
        """As `ChocoWorker`."""
        o = self.o
        self.seen += 1
        self.v.mul_(o.beta).add_(apart**2, alpha=1 - o.beta)
        root = (self.v / (1 - o.beta**self.seen)).sqrt()
        return (o.gamma / (root + _TINY)).clamp_max(1.0) * apart
