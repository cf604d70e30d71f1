"""The processes of a run: a replica's hub, with its one worker beside it, or a gang of workers of their own."""

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from baechi.replicas.cluster.body import Body, Ended
from baechi.replicas.cluster.hub import Hub, HubOptions, Lost
from baechi.replicas.cluster.session import Session, enter
from baechi.replicas.peer import Arrays, Message

__all__ = ["ReplicaActor", "WorkerActor"]


class ReplicaActor:
    """A replica: its hub, and its worker unless that is a gang.

    Args:
        peer: which replica.
        options: of the hubs.
        incarnation: one more after each restart.
        joining: whether it takes over a running replica's model.
    """

    def __init__(self, peer: int, options: HubOptions, incarnation: int, joining: bool) -> None:
        self._others: Mapping[int, Any] = {}
        self._hub = Hub(peer, options, self._call, incarnation=incarnation, joining=joining)

    def meet(self, others: Mapping[int, Any]) -> None:
        """Who is there now, by number; from the first time on this replica mixes."""
        first = not self._others
        self._others = dict(others)
        self._hub.meet(tuple(sorted(others)))
        if first:
            self._hub.start()

    def hear(self, message: Message) -> Message | None:
        """Another replica says something."""
        return self._hub.receive(message)

    def enter(self, rank: int, arrays: Arrays) -> Arrays | None:
        """For a gang: as `Hub.enter`."""
        return self._hub.enter(rank, arrays)

    def boundary(self, rank: int, step: int, arrays: Arrays, loss: float | None) -> Arrays | None:
        """For a gang: as `Hub.boundary`."""
        return self._hub.boundary(rank, step, arrays, loss)

    def address(self) -> tuple[str, int]:
        """Where this replica can be reached by the others, for a method: this machine, and a port."""
        return _free_address()

    def put_on_wire(self, nbytes: int) -> None:
        """For a gang: as `Hub.put_on_wire`."""
        self._hub.put_on_wire(nbytes)

    def train(self, session: Session, body: Body) -> Ended:
        """Run the script or function here."""
        enter(replace(session, hub=self._hub))
        ended = body.run(f"replica-{session.index}")
        self._hub.stop()
        return ended

    def rest(self) -> None:
        """Begin no exchange any more."""
        self._hub.stop()

    def status(self) -> dict[str, Any]:
        """As `Hub.status`, and the process."""
        return {**self._hub.status(), "pid": os.getpid()}

    def model(self) -> Arrays | None:
        """The model now."""
        return self._hub.model()

    def _call(self, to: int, message: Message, patience: float) -> Message | None:
        import ray

        other = self._others.get(to)
        if other is None:
            raise Lost
        try:
            answer: Message | None = ray.get(other.hear.remote(message), timeout=patience)
        except (ray.exceptions.RayError, TimeoutError):
            raise Lost from None
        return answer


class WorkerActor:
    """One worker of a gang: it has a device's share of the model."""

    def address(self) -> tuple[str, int]:
        """Where rank 0 of a gang can be reached: this machine, and a port that was free just now."""
        return _free_address()

    def train(self, session: Session, body: Body, hub: Any, address: tuple[str, int]) -> Ended:
        """Run the script or function here, as one of the workers that `torchrun` would have started."""
        os.environ |= {
            "RANK": str(session.rank),
            "WORLD_SIZE": str(session.shares),
            "MASTER_ADDR": address[0],
            "MASTER_PORT": str(address[1]),
        }
        enter(replace(session, hub=_Far(hub)))
        return body.run(f"replica-{session.index}.{session.rank}")


def _free_address() -> tuple[str, int]:
    import ray.util

    with socket.socket() as probe:
        probe.bind(("", 0))
        here: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return here, probe.getsockname()[1]


class _Far:
    """A hub in another process."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def enter(self, rank: int, arrays: Arrays) -> Arrays | None:
        import ray

        found: Arrays | None = ray.get(self._hub.enter.remote(rank, arrays))
        return found

    def boundary(self, rank: int, step: int, arrays: Arrays, loss: float | None) -> Arrays | None:
        import ray

        found: Arrays | None = ray.get(self._hub.boundary.remote(rank, step, arrays, loss))
        return found

    def put_on_wire(self, nbytes: int) -> None:
        self._hub.put_on_wire.remote(nbytes)
