"""SAVIC: local SGD whose steps are scaled by a diagonal that all workers share until the next mean (2406.00846)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baechi.replicas.compress.base import Key
from baechi.replicas.methods.core import Mean, Oracle, Step, Worker
from baechi.replicas.methods.descent import Descent

__all__ = ["SCALINGS", "Savic", "SavicWorker"]

SCALINGS = ("identity", "rmsprop", "adam", "oasis")
"""What D can be; `identity` is local SGD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Savic(Descent):
    """x_i -= rate * g_i / Dhat, Dhat = max(alpha, |D|); every H steps the mean of the x_i, and a new D.

    rmsprop: D^2 = beta D^2 + (1 - beta) (mean g)^2, from 0. adam: the same with
    beta_p = (beta - beta^(p+1)) / (1 - beta^(p+1)), so that its first D is |mean g|. oasis:
    D = beta D + (1 - beta) mean_i z * (Hess_i z) with a random z of signs that all workers draw alike
    (Hutchinson); its first D is the first estimate.

    Attributes:
        h: H.
        scaling: one of `SCALINGS`.
        beta: how slowly D changes.
        alpha: the least that is divided by.
    """

    name: ClassVar[str] = "savic"

    h: int = 8
    scaling: str = "oasis"
    beta: float = 0.999
    alpha: float = 1e-3

    def check(self) -> None:
        """As `Descent`."""
        self.at_least(1, "h")
        if self.scaling not in SCALINGS:
            raise self.out_of_range(f"no scaling '{self.scaling}'", "one of: " + ", ".join(SCALINGS))
        if not (0 <= self.beta < 1 and self.alpha > 0):
            what = f"beta is {self.beta:g} and alpha {self.alpha:g}"
            raise self.out_of_range(what, "0 to below 1, and more than 0")

    def begin(self, **state: Any) -> Worker:
        """As `Descent`."""
        x = state["x"]
        return SavicWorker(o=self, d=x.new_zeros(len(x)), scale=torch.ones_like(x), **state)


@dataclass(slots=True, kw_only=True, eq=False)
class SavicWorker(Worker):
    """Besides x, D and Dhat, which are the same on all workers."""

    o: Savic
    d: Tensor
    scale: Tensor

    def step(self, t: int, oracle: Oracle) -> Step:
        """As `Worker`."""
        o = self.o
        g = oracle.gradient(self.x)
        if t % o.h == 0 and o.scaling == "oasis":
            z = self._signs(t)
            self._rescale_oasis(t // o.h, (yield Mean(z * oracle.curvature(self.x, z))))
        elif t % o.h == 0 and o.scaling != "identity":
            self._rescale_squares(t // o.h, (yield Mean(g)))
        self.x -= o.rate(t) * o.direction(self, g) / self.scale
        if (t + 1) % o.h == 0:
            self.x.copy_((yield Mean(self.x)))

    def _signs(self, t: int) -> Tensor:
        shared = Key(self.seed, t, tensor=self.first)
        drawn = [
            torch.randint(2, (size,), generator=shared._replace(tensor=self.first + n).generator())
            for n, size in enumerate(self.sizes)
        ]
        return (2 * torch.cat(drawn) - 1).to(self.x)

    def _rescale_oasis(self, p: int, estimate: Tensor) -> None:
        beta = self.o.beta if p else 0.0
        self.d.mul_(beta).add_(estimate, alpha=1 - beta)
        self.scale.copy_(self.d.abs().clamp_min(self.o.alpha))

    def _rescale_squares(self, p: int, mean: Tensor) -> None:
        beta = self.o.beta
        if self.o.scaling == "adam":
            beta = (beta - beta ** (p + 1)) / (1 - beta ** (p + 1))
        self.d.copy_((beta * self.d**2 + (1 - beta) * mean**2).sqrt())
        self.scale.copy_(self.d.clamp_min(self.o.alpha))
