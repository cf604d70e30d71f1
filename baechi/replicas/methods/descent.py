"""What all methods have in common: their options are fields, and a local step is a descent with a rate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.methods.core import Runner, Worker

if TYPE_CHECKING:
    from baechi.replicas.methods.hostile import Hostile
    from baechi.replicas.methods.lockstep import Costs
    from baechi.replicas.problems.base import Problem

__all__ = ["Descent", "refuse"]


def refuse(name: str, what: str, help: str = "") -> BaechiError:
    """The error of an option that is out of its range."""
    return BaechiError("B831", f"method '{name}': {what}", help=help)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """Options of a local step, x -= rate(t) * direction(gradient).

    Attributes:
        lr: the learning rate.
        momentum: of the heavy ball; 0 is none.
        nesterov: whether it looks ahead.
        weight_decay: is multiplied with x and added to a gradient.
        clip: the largest norm of a gradient; 0 is no limit.
        warmup: steps in which the rate grows to `lr`, in a line.
        milestones: steps after each of which the rate is multiplied by `decay`.
        decay: by what.
        horizon: the rate falls as 1 / sqrt(t / horizon + 1); 0 is never (FedPBC's schedule).
    """

    name: ClassVar[str] = ""
    keeps_mean: ClassVar[bool] = False
    """Whether the mean of the workers' models goes by the mean of their gradients alone, whatever is sent when."""

    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float = 0.0
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    decay: float = 0.2
    horizon: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise refuse(self.name, f"lr is {self.lr:g}", "more than 0")
        if not 0 <= self.momentum < 1:
            raise refuse(self.name, f"momentum is {self.momentum:g}", "0 to below 1")
        for option in ("weight_decay", "clip", "warmup", "decay", "horizon"):
            if not 0 <= getattr(self, option) < float("inf"):
                raise refuse(self.name, f"{option} is {getattr(self, option):g}", "at least 0")
        self.check()

    def check(self) -> None:
        """Refuse options of a subclass that are out of their range.

        Raises:
            BaechiError: B831.
        """

    def at_least(self, least: float, *options: str) -> None:
        """Refuse options below `least`."""
        for option in options:
            if not getattr(self, option) >= least:
                raise refuse(self.name, f"{option} is {getattr(self, option):g}", f"at least {least:g}")

    def out_of_range(self, what: str, help: str = "") -> BaechiError:
        """The error of an option that is out of its range."""
        return refuse(self.name, what, help)

    def rate(self, t: int) -> float:
        """The learning rate of step t."""
        rate = self.lr * self.decay ** sum(t >= m for m in self.milestones)
        if t < self.warmup:
            rate *= (t + 1) / self.warmup
        return rate / (t / self.horizon + 1) ** 0.5 if self.horizon else rate

    def direction(self, worker: Worker, gradient: Tensor) -> Tensor:
        """Where to go, (d,): the gradient, decayed, clipped, and with momentum; changes the worker's buffer."""
        g = gradient
        if self.weight_decay:
            g = g + self.weight_decay * worker.x
        if self.clip:
            g = g * min(1.0, self.clip / max(float(g.norm()), 1e-30))
        if not self.momentum:
            return g
        if worker.m is None:
            worker.m = torch.zeros_like(worker.x)
        worker.m.mul_(self.momentum).add_(g)
        return g + self.momentum * worker.m if self.nesterov else worker.m.clone()

    def worker(
        self, index: int, count: int, x0: Tensor, seed: int, sizes: tuple[int, ...] = (), first: int = 0
    ) -> Worker:
        """The state of one of `count` workers before the first step.

        Args:
            index: its number.
            count: of workers.
            x0: (d,); copied.
            seed: of all that is drawn; the same for all.
            sizes: of the tensors in the vector; one of d elements when empty.
            first: the number of the first of them, when the vector is one shard of a placed model. A worker for
                each shard does what one for the whole would, where it is; but for `clip`, whose norm is the shard's.
        """
        return self.begin(
            index=index, count=count, seed=seed, sizes=sizes or (len(x0),), first=first, x=x0.detach().clone()
        )

    def begin(self, **state: Any) -> Worker:
        """The worker's class, made with `state`."""
        raise NotImplementedError

    def runner(
        self,
        problem: "Problem",
        workers: int,
        seed: int,
        costs: "Costs | None" = None,
        hostile: "Hostile | None" = None,
    ) -> Runner:
        """All workers on a problem.

        Args:
            problem: has data for at least so many workers.
            workers: how many.
            seed: of the start and of all that the method draws.
            costs: of computing and sending, for the virtual clock.
            hostile: the workers that attack.
        """
        from baechi.replicas.methods.lockstep import Lockstep

        return Lockstep(self, problem, workers, seed, costs, hostile)
