"""Which algorithm a hub carries, and its peer for a replica."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from baechi.replicas.draco import Draco
from baechi.replicas.draco_options import receiver_weights
from baechi.replicas.gossip import Gossip
from baechi.replicas.guard import Guard
from baechi.replicas.peer import Arrays, Peer
from baechi.replicas.topology import Chooser, Topology, parse_topology

if TYPE_CHECKING:
    from baechi.replicas.cluster.hub import HubOptions

__all__ = ["Carried", "make_peer"]


class Carried(Peer, Protocol):
    """A peer that a hub can carry: it says how it is."""

    guard: Guard
    joining: bool
    version: int
    reflects: dict[int, int]

    def settle(self, now: float) -> None:
        """Let take effect what was delayed until now."""

    def ignored(self, now: float) -> dict[int, str]:
        """Who is left alone now, and why."""


def make_peer(
    index: int,
    arrays: Arrays,
    options: "HubOptions",
    members: Callable[[], Sequence[int]],
    *,
    incarnation: int,
    joining: bool,
) -> Carried:
    """The peer of a replica.

    Args:
        index: which replica.
        arrays: its model at the start.
        options: of the run.
        members: who is there now.
        incarnation: one more after each restart.
        joining: whether it takes over a running replica's model.
    """
    if options.draco is not None:
        topology = _topology(options) or parse_topology("complete", max(2, options.count))
        weights = receiver_weights(topology, options.draco.own if options.draco.own < 1 else 0.0)
        row = {j: float(w) for j, w in enumerate(weights[index]) if j != index and w}
        near = [j for j in topology.neighbours(index) if j < options.count]
        return Draco(index, arrays, row, near, options.count, options.draco, incarnation=incarnation, joining=joining)
    found = _topology(options) if index < options.count else None

    def anybody(random: Random, now: float) -> int | None:
        others = [i for i in members() if i != index]
        return random.choice(others) if others else None

    choose = anybody if found is None else Chooser(found, index)
    return Gossip(index, arrays, options.gossip, choose=choose, incarnation=incarnation, joining=joining)


def _topology(options: "HubOptions") -> Topology | None:
    """The topology; None where all talk to all, as one does that came after it was made."""
    if options.topology == "complete" or options.count < 2:
        return None
    return parse_topology(options.topology, options.count, options.seed)
