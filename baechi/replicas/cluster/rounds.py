"""A method in a person's own training loop: the loop computes gradients, the method makes the update."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baechi.errors import BaechiError
from baechi.replicas.methods import method
from baechi.replicas.methods.core import drive
from baechi.replicas.methods.distributed import TorchCollective
from baechi.replicas.methods.fedasync import FedAsync, Server

__all__ = ["Place", "Rounds", "ServerActor", "has_server"]

_PATIENCE = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Place:
    """A replica's place among those that train by a method.

    Attributes:
        name: of the method.
        options: of it.
        index: of the replica.
        count: of replicas.
        seed: of what the method draws.
        rendezvous: where replica 0 can be reached.
        server: the process of a method that has one.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    count: int = 1
    seed: int = 0
    rendezvous: tuple[str, int] = ("", 0)
    server: Any = None


def has_server(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a method has a server, and so no worker waits for the others.

    Raises:
        BaechiError: B831 when there is no such method or option.
    """
    return isinstance(method(name, **options), FedAsync)


class ServerActor:
    """The process of a method's server.

    Args:
        name: of the method.
        options: of it.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._method: Any = method(name, **options)
        self._server: Server | None = None

    def pull(self, start: Tensor) -> tuple[Tensor, int]:
        """The model and its version; the first that asks brings it."""
        if self._server is None:
            self._server = self._method.server(start)
        return self._server.pull()

    def push(self, new: Tensor, version: int) -> tuple[Tensor, int]:
        """Mix in a worker's model, which began from a version; returns the newest."""
        if self._server is None:
            raise BaechiError("B803", "the server has no model yet", help="pull first")
        self._server.push(new, version)
        return self._server.pull()


class Rounds:
    """A worker of a method, between the loop's gradients and its weights.

    The optimiser's own step does nothing any more; its learning rate is the method's at each step, unless `lr` is
    among the options.

    Args:
        place: the method, and which worker this is.
        model: a module, placed or not, whose gradients the loop computes; all begin with the model of one of them.
        optimizer: of the loop.

    Raises:
        BaechiError: B802 when the model is no module, B831 on a bad method or option.
    """

    examples = 1
    """A loop does not tell how many it has: all count alike, where the method's `weights` do not say."""

    def __init__(self, place: Place, model: Any, optimizer: Any) -> None:
        if not isinstance(model, nn.Module):
            what = f"method '{place.name}' needs the gradients of a module"
            raise BaechiError("B802", what, help="join(model, optimizer)")
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer, self._follows = optimizer, optimizer is not None and "lr" not in place.options
        if optimizer is not None:
            optimizer.step = _nothing
        sizes = tuple(p.numel() for p in self._parameters)
        start = torch.cat([p.detach().flatten().cpu() for p in self._parameters])
        made = method(place.name, **place.options)
        if place.server is None:
            self._wires: _Collective | _Server = _Collective(place)
            dist.broadcast(start, 0)
        else:
            self._wires = _Server(place.server)
        self._worker: Any = made.worker(place.index, place.count, start, place.seed, sizes)
        self._wires.begin(self._worker)
        self._t = 0
        self._write()

    def step(self) -> int:
        """Make the update of this step from the gradients that the loop has computed; returns bytes sent."""
        worker, before = self._worker, self._wires.sent
        if self._follows:
            worker.o = replace(worker.o, lr=self._optimizer.param_groups[0]["lr"])
        self._wires.step(worker, self._t, self)
        self._t += 1
        self._write()
        return self._wires.sent - before

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


class _Collective:
    """A process group of all replicas, and the bytes that this one puts into it."""

    def __init__(self, place: Place) -> None:
        host, port = place.rendezvous
        dist.init_process_group("gloo", f"tcp://{host}:{port}", _PATIENCE, world_size=place.count, rank=place.index)
        self._group, self.sent = TorchCollective(), 0

    def begin(self, worker: Any) -> None:
        """All have the same model already."""

    def step(self, worker: Any, t: int, oracle: Rounds) -> None:
        drive(worker.step(t, oracle), self)

    def mean(self, tensor: Tensor, active: bool = True, weight: float | None = None) -> Tensor:
        self.sent += tensor.nbytes * active
        return self._group.mean(tensor, active, weight)

    def gather(self, tensor: Tensor, active: bool = True) -> Tensor:
        self.sent += tensor.nbytes * active
        return self._group.gather(tensor, active)

    def swap(self, tensor: Tensor, peers: Sequence[int]) -> Tensor:
        self.sent += tensor.nbytes * len(peers)
        return self._group.swap(tensor, peers)


class _Server:
    """The server's process: a worker gives its model after its local steps and goes on from the newest."""

    def __init__(self, server: Any) -> None:
        self._server, self.sent = server, 0

    def begin(self, worker: Any) -> None:
        import ray

        worker.begin(*ray.get(self._server.pull.remote(worker.x)))

    def step(self, worker: Any, t: int, oracle: Rounds) -> None:
        import ray

        if worker.local(oracle):
            self.sent += worker.x.nbytes
            worker.begin(*ray.get(self._server.push.remote(worker.x, worker.version)))


def _nothing(closure: Any = None) -> Any:
    return None if closure is None else closure()
