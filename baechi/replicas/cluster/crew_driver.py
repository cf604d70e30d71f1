"""Starts the peers of a run of clusters, and says which cluster has lost one."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from baechi.errors import BaechiError
from baechi.replicas.cluster.body import Body, Ended
from baechi.replicas.cluster.crew_actors import INBOX, PeerActor
from baechi.replicas.cluster.crew_session import CrewSession
from baechi.replicas.cluster.embedded import cluster
from baechi.replicas.cluster.roll import Roll
from baechi.replicas.cluster.waiting import POLL_SECONDS, answers, await_started, cores_each, explained
from baechi.replicas.ravnest.layout import Layout
from baechi.replicas.ravnest.rings import Floats

__all__ = ["CrewDriver", "CrewOutcome", "PeerStatuses"]

_CALLS_AT_ONCE = 8

PeerStatuses = Mapping[int, Mapping[str, Any]]
"""By peer, what `Station.status` gives."""


@dataclass(frozen=True, slots=True)
class CrewOutcome:
    """What became of a run of clusters.

    Attributes:
        layout: who had which stage; None when it did not come to that.
        statuses: of each peer at its end.
        ended: how each ended.
        gone: the clusters that lost a peer.
        models: by cluster that did not, all its weights.
        seconds: of the whole.
    """

    layout: Layout | None
    statuses: PeerStatuses
    ended: Mapping[int, Ended]
    gone: tuple[int, ...]
    models: Mapping[int, Mapping[str, Floats]]
    seconds: float


class CrewDriver:
    """Peers while they run; a context manager.

    Args:
        session: what all peers are told.
        body: what each does.
        address: of a Ray cluster; None for one on this machine, for as long as the run takes. There, a peer goes to the
            node that has a resource of its name, if any has.

    Raises:
        BaechiError: B805 without Ray, B806 when its cluster cannot be reached or has no room.
    """

    def __init__(self, session: CrewSession, body: Body, address: str | None = None) -> None:
        self._session, self._body, self._address = session, body, address
        self._peers: list[Any] = []
        self._tasks: dict[Any, int] = {}
        self._ended: dict[int, Ended] = {}
        self._statuses: dict[int, Mapping[str, Any]] = {}
        self._began = time.monotonic()
        self._ray: Any = None
        self._roll: Any = None
        self._open: Any = None

    def __enter__(self) -> Self:
        self._open = cluster(self._address)
        self._ray = self._open.__enter__()
        try:
            self._start()
        except BaseException:
            self._open.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in (*self._peers, self._roll):
            with suppress(Exception):
                self._ray.kill(peer)
        self._open.__exit__(None, None, None)

    def statuses(self) -> PeerStatuses:
        """How all are now; the last that is known of one that does not answer."""
        asked = {peer.status.remote(): i for i, peer in enumerate(self._peers)}
        self._statuses |= answers(self._ray, asked)
        return dict(self._statuses)

    def wait(self, show: Callable[[PeerStatuses], None] = lambda statuses: None) -> CrewOutcome:
        """Wait until all have ended; `show` is called now and then.

        Raises:
            BaechiError: what a peer ran into, when no cluster came to its end.
        """
        while self._tasks:
            self.poll()
            show(self.statuses())
        status = self._ray.get(self._roll.status.remote())
        layout: Layout | None = status["layout"]
        whole = [c for c in range(len(layout.peers)) if c not in status["gone"]] if layout is not None else []
        if not whole:
            faults = [(i, e) for i, e in sorted(self._ended.items()) if e.code]
            first = next((f for f in faults if f[1].code != "B808"), faults[0] if faults else None)
            if first is not None:
                name = self._session.nodes[first[0]].name
                raise BaechiError(first[1].code, f"peer '{name}': {first[1].what}", help=first[1].help)
        models = {c: self._model(layout.peers[c]) for c in whole} if layout is not None else {}
        seconds = time.monotonic() - self._began
        return CrewOutcome(layout, self.statuses(), dict(self._ended), status["gone"], models, seconds)

    def poll(self) -> None:
        """Look once whether a peer has ended or died."""
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=POLL_SECONDS)
        for task in ready:
            peer = self._tasks.pop(task)
            try:
                self._ended[peer] = self._ray.get(task)
            except self._ray.exceptions.RayActorError:
                self._ended[peer] = Ended("B808", "it died", "see what killed it")
            except self._ray.exceptions.RayError as error:
                self._ended[peer] = Ended("B807", str(error).splitlines()[0])
            if self._ended[peer].code:
                self._lose(peer)

    def _lose(self, peer: int) -> None:
        """A peer's cluster goes, and the others go on."""
        if peer == 0:  # who waits for it to form the clusters waits in vain
            self._ray.get(self._roll.abandon.remote(self._ended[peer]))
        layout: Layout | None = self._ray.get(self._roll.status.remote())["layout"]
        seat = None if layout is None else layout.seat(peer).cluster
        if seat is None:
            return
        self._ray.get(self._roll.lose.remote(seat))
        why = f"'{self._session.nodes[peer].name}': {self._ended[peer].what}"
        for other in self._peers:
            other.receive.options(concurrency_group=INBOX).remote("gone", seat, why)

    def _start(self) -> None:
        ray, nodes = self._ray, self._session.nodes
        cores = cores_each(self._address)
        self._roll = ray.remote(num_cpus=0, max_concurrency=16 * len(nodes) + 8)(Roll).remote()
        groups = {INBOX: 1}
        made = ray.remote(num_cpus=cores, max_concurrency=_CALLS_AT_ONCE, concurrency_groups=groups)(PeerActor)
        there = ray.cluster_resources()
        for i, node in enumerate(nodes):
            own = {node.name: 0.001} if node.name in there else {}
            self._peers.append(made.options(resources=own).remote(replace(self._session, peer=i)))
        met = [peer.meet.remote(self._peers) for peer in self._peers]
        with explained(ray, "a peer"):
            await_started(ray, met, "peers")
        self._tasks = {peer.train.remote(self._body, self._roll): i for i, peer in enumerate(self._peers)}

    def _model(self, peers: tuple[int, ...]) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        with suppress(self._ray.exceptions.RayError):
            for weights in self._ray.get([self._peers[i].weights.remote() for i in peers]):
                found |= weights
        return found
