"""The processes of a run of clusters: one for each peer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from baechi.replicas.cluster.body import Body, Ended
from baechi.replicas.cluster.crew_session import CrewSession, enter_crew
from baechi.replicas.cluster.station import Station
from baechi.replicas.ravnest.layout import Layout
from baechi.replicas.ravnest.rings import Floats

__all__ = ["INBOX", "PeerActor"]

INBOX = "inbox"
"""What others send is taken in the order in which it comes: by one thread of its own."""


class PeerActor:
    """A peer: its station, and the script beside it.

    Args:
        session: its place in the run, without what only a process has.
    """

    def __init__(self, session: CrewSession) -> None:
        self._session = session
        self._others: Sequence[Any] = ()
        self._station = Station(session.nodes[session.peer].name, self._send)

    def meet(self, others: Sequence[Any]) -> None:
        """All peers, by number."""
        self._others = others

    def receive(self, what: str, *arguments: Any) -> None:
        """Another peer sends something: what `Station` has by that name."""
        getattr(self._station, what)(*arguments)

    def train(self, body: Body, roll: Any) -> Ended:
        """Run the script or function here."""
        enter_crew(replace(self._session, station=self._station, rules=_Far(roll), ask=self._ask))
        return body.run(f"peer-{self._session.nodes[self._session.peer].name}".replace(":", "-"))

    def weights(self, done: int = 0, averages: int = 0) -> dict[str, Floats]:
        """As `Station.weights`."""
        return self._station.weights(done, averages)

    def status(self) -> dict[str, Any]:
        """As `Station.status`, and the process."""
        return {**self._station.status(), "pid": os.getpid()}

    def _send(self, to: int, what: str, arguments: Any) -> None:
        self._others[to].receive.options(concurrency_group=INBOX).remote(what, *arguments)

    def _ask(self, peer: int, done: int, averages: int) -> Mapping[str, Floats]:
        import ray

        found: Mapping[str, Floats] = ray.get(self._others[peer].weights.remote(done, averages))
        return found


class _Far:
    """The roll, in a process of its own."""

    def __init__(self, roll: Any) -> None:
        self._roll = roll

    def publish(self, layout: Layout | Ended) -> None:
        self._get("publish", layout)

    def layout(self) -> Layout | Ended:
        found: Layout | Ended = self._get("layout")
        return found

    def living(self) -> tuple[int, ...]:
        found: tuple[int, ...] = self._get("living")
        return found

    def settle(self, turn: int, ring: int, cluster: int, members: tuple[int, ...]) -> tuple[int, ...]:
        found: tuple[int, ...] = self._get("settle", turn, ring, cluster, members)
        return found

    def _get(self, what: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self._roll, what).remote(*arguments))
