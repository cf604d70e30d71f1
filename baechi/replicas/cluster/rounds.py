"""A synchronous method in a person's own training loop: the loop computes gradients, the method makes the update."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baechi.errors import BaechiError
from baechi.replicas.methods import METHODS, method
from baechi.replicas.methods.core import drive
from baechi.replicas.methods.distributed import TorchCollective

__all__ = ["Rounds", "check_method"]

_PATIENCE = datetime.timedelta(minutes=10)
_OWN_CLOCK = ("fedasync",)


def check_method(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a method that cannot run in a script's loop, or an option that it does not have.

    Raises:
        BaechiError: B831.
    """
    if name in _OWN_CLOCK:
        others = ", ".join(m for m in METHODS if m not in _OWN_CLOCK)
        raise BaechiError("B831", f"'{name}' has a server, and is simulated only: baechi replicas compare", help=others)
    method(name, **options)


class Rounds:
    """A worker of a method, between the loop's gradients and its weights.

    The optimiser's own step does nothing any more; its learning rate is the method's at each step, unless `lr` is
    among the options.

    Args:
        name: of the method.
        options: of it.
        model: a module, placed or not, whose gradients the loop computes; all begin with the model of replica 0.
        optimizer: of the loop.
        index, count: of the replica.
        seed: of what the method draws.
        rendezvous: where replica 0 can be reached.

    Raises:
        BaechiError: B802 when the model is no module, B831 as `check_method`.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        model: Any,
        optimizer: Any,
        *,
        index: int,
        count: int,
        seed: int,
        rendezvous: tuple[str, int],
    ) -> None:
        if not isinstance(model, nn.Module):
            raise BaechiError("B802", f"method '{name}' needs the gradients of a module", help="join(model, optimizer)")
        check_method(name, options)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer, self._follows = optimizer, optimizer is not None and "lr" not in options
        if optimizer is not None:
            optimizer.step = _nothing
        host, port = rendezvous
        dist.init_process_group("gloo", f"tcp://{host}:{port}", _PATIENCE, world_size=count, rank=index)
        start = torch.cat([p.detach().flatten().cpu() for p in self._parameters])
        dist.broadcast(start, 0)
        sizes = tuple(p.numel() for p in self._parameters)
        self._worker: Any = method(name, **options).worker(index, count, start, seed, sizes)
        self._collective = _Counted()
        self._t = 0
        self._write()

    def step(self) -> int:
        """Make the update of this step from the gradients that the loop has computed; returns bytes sent."""
        worker, before = self._worker, self._collective.sent
        if self._follows:
            worker.o = replace(worker.o, lr=self._optimizer.param_groups[0]["lr"])
        drive(worker.step(self._t, self), self._collective)
        self._t += 1
        self._write()
        return self._collective.sent - before

    def gradient(self, x: Tensor) -> Tensor:
        """The loop's gradient, which is one at the worker's own model."""
        return torch.cat(
            [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().cpu() for p in self._parameters]
        )

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """No loop computes Hessian-vector products.

        Raises:
            BaechiError: B831.
        """
        raise BaechiError("B831", "this scaling needs Hessian-vector products", help="take adam or rmsprop scaling")

    @torch.no_grad()
    def _write(self) -> None:
        pieces = self._worker.x.split([p.numel() for p in self._parameters])
        for parameter, piece in zip(self._parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))


class _Counted:
    """The collective of the process group, and the bytes that this worker puts into it."""

    def __init__(self) -> None:
        self._group, self.sent = TorchCollective(), 0

    def mean(self, tensor: Tensor, active: bool = True) -> Tensor:
        self.sent += tensor.nbytes * active
        return self._group.mean(tensor, active)

    def gather(self, tensor: Tensor, active: bool = True) -> Tensor:
        self.sent += tensor.nbytes * active
        return self._group.gather(tensor, active)

    def swap(self, tensor: Tensor, peers: Sequence[int]) -> Tensor:
        self.sent += tensor.nbytes * len(peers)
        return self._group.swap(tensor, peers)


def _nothing(closure: Any = None) -> Any:
    return None if closure is None else closure()
