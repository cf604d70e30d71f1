"""DRACO: computation and communication on schedules of their own, row-stochastic weights, late and surplus news dropped.

Jeong and Kountouris, "DRACO: Decentralized Asynchronous Federated Learning over Row-Stochastic Wireless Networks"
(arXiv:2406.13533). What the sources that we read leave open is an option here: whether a message has the sender's
updates since its last one or its model, and what a peer's own update counts. Updates alone draw no models together:
without unification each peer ends at an optimum of its own. Push-sum: Assran et al., "Stochastic Gradient Push"
(arXiv:1811.10792).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.replicas.guard import Guard
from baechi.replicas.peer import Arrays, Envelope, Message, Snapshot
from baechi.replicas.topology import Topology, mixing_warning

__all__ = ["Draco", "DracoOptions", "Exchange", "draco_warning", "receiver_weights"]

_MASK = (1 << 64) - 1
_MEMORY = 0.005  # of the mean weight in push-sum: of so many of the last updates

Exchange: TypeAlias = Literal["update", "model", "push-sum"]


@dataclass(frozen=True, slots=True)
class DracoOptions:
    """What a peer sends and what it lets in.

    Attributes:
        exchange: ``update``: what local steps changed since the last message, of which the receiver adds its share;
            ``model``: the sender's model, towards which the receiver moves by its share; ``push-sum``: shares of the
            model and of a weight, which finds the mean whatever the graph.
        own: what a peer's own update counts in its model once it was sent, as q_ii of the row; 1 leaves it as it is.
            For ``update`` only.
        max_delay: Gamma, in seconds: what is older when it comes is dropped.
        max_received: Psi: how many messages are let in for each period; None for any number.
        period: P, in seconds: of the cap and of the unification.
        unify: whether after each period the model of one peer, drawn at random, takes the place of all others.
        seed: of these draws; the same for all peers.

    Raises:
        BaechiError: B845 on values out of their range.
    """

    exchange: Exchange = "update"
    own: float = 1.0
    max_delay: float = np.inf
    max_received: int | None = None
    period: float = 10.0
    unify: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        known = get_args(Exchange)
        if self.exchange not in known:
            raise BaechiError("B845", f"DRACO has no exchange '{self.exchange}'", help="one of: " + ", ".join(known))
        if not (0 <= self.own <= 1 and self.max_delay >= 0 and self.period > 0):
            raise BaechiError("B845", "own is from 0 to 1, a delay 0 or more and a period above 0 seconds")
        if self.max_received is not None and self.max_received < 0:
            raise BaechiError("B845", f"a cap of {self.max_received} messages", help="0 or more")
        if self.exchange == "push-sum" and self.unify:
            raise BaechiError("B845", "push-sum's weights add up; a unification would break that", help="unify=False")


def receiver_weights(topology: Topology, own: float = 0.0) -> NDArray[np.float64]:
    """(n, n) equal weights: row j says what receiver j counts the peers it hears; each row sums to 1.

    Args:
        topology: i sends to its neighbours.
        own: the diagonal.

    Raises:
        BaechiError: B845 when nobody sends to some peer.
    """
    n = topology.peers
    heard = np.zeros((n, n))
    for i in range(n):
        heard[list(topology.neighbours(i)), i] = 1.0
    if (heard.sum(axis=1) == 0).any():
        peer = int(np.argmin(heard.sum(axis=1)))
        raise BaechiError("B845", f"peer {peer} hears nobody", help="every peer needs a neighbour that sends to it")
    weights: NDArray[np.float64] = heard / heard.sum(axis=1, keepdims=True) * (1 - own)
    np.fill_diagonal(weights, own)
    return weights


def draco_warning(weights: NDArray[Any], options: DracoOptions) -> str | None:
    """What a person should know about these weights: that they count some peers more than others, or nothing.

    Args:
        weights: (n, n): row j is receiver j's.
        options: of the peers.
    """
    if options.exchange == "push-sum":
        return None
    if options.exchange == "model":
        return mixing_warning(weights)
    matrix = np.array(weights, np.float64)
    np.fill_diagonal(matrix, options.own)
    counts = matrix.sum(axis=0) / matrix.sum(axis=0).mean()
    if np.abs(counts - 1).max() <= 1e-9:
        return None
    return (
        "the weights are row-stochastic only: after unification by peers drawn at random, training converges to an optimum "
        f"that counts the peers {counts.min():.2f} to {counts.max():.2f} times an equal share, not to the mean; "
        "push-sum has no such bias (exchange = push-sum)"
    )


class Draco:
    """A peer of DRACO.

    Args:
        peer: which one it is.
        arrays: its model at the start; the same for all, or `unify`.
        row: by sender, the weight q that this receiver counts it with.
        targets: whom it sends to.
        count: how many peers there are.
        options: see `DracoOptions`.
        incarnation: one more after each restart.
        joining: whether it waits for another's model: the next unification, or a message of one.

    Attributes:
        guard: counts what was refused, by reason and by sender: also ``too old`` and ``over cap``.
        unified: how many unifications it took part in as a receiver.

    Example:
        >>> left, right = (Draco(i, (np.zeros(1),), {1 - i: 0.5}, (1 - i,), 2) for i in (0, 1))
        >>> _ = left.learned((np.ones(1),), left.arrays, 1.0)
        >>> [(to, message)] = left.tick(1.5, Random(0))
        >>> right.receive(message, 1.6)
        >>> right.arrays
        (array([0.5]),)
    """

    def __init__(
        self,
        peer: int,
        arrays: Arrays,
        row: Mapping[int, float],
        targets: Sequence[int],
        count: int,
        options: DracoOptions | None = None,
        *,
        incarnation: int = 0,
        joining: bool = False,
    ) -> None:
        self.peer, self.options, self.incarnation, self.joining = peer, options or DracoOptions(), incarnation, joining
        self.guard = Guard.of(arrays)
        self.version = 0
        self.reflects: dict[int, int] = {peer: 0}
        self.unified = 0
        self._row, self._targets, self._count = dict(row), tuple(targets), count
        self._model, self._weight, self._typical = arrays, 1.0, 1.0
        self._buffer: Arrays | None = None
        self._serial = 0
        self._received: Counter[int] = Counter()
        self._period = 0  # the last whose hub was drawn
        self._sent: dict[int, Snapshot] = {}

    @property
    def arrays(self) -> Arrays:
        """The model now."""
        if self._weight == 1.0:
            return self._model
        return tuple((a / self._weight).astype(a.dtype, copy=False) for a in self._model)

    def learned(self, arrays: Arrays, since: Arrays, now: float) -> Sequence[Envelope]:
        """The update takes effect here at once, and waits in the send buffer for the transmission clock."""
        if self.joining:
            return ()
        scale = self._share()
        change = tuple((a - s) * a.dtype.type(scale) for a, s in zip(arrays, since, strict=True))
        self._model = arrays if self._model is since and scale == 1.0 else _sum(self._model, change)
        if self.options.exchange == "update":
            self._buffer = change if self._buffer is None else _sum(self._buffer, change)
        self.version += 1
        self.reflects[self.peer] = self.version
        return ()

    def _share(self) -> float:
        """What an update counts in push-sum's sums: its weight, over what it is on average, so that all count alike.

        A whole update, as in synchronous push-sum, would throw a peer far off whose weight is small at the moment.
        """
        self._typical += (self._weight - self._typical) * max(1 / (self.version + 1), _MEMORY)
        return self._weight / self._typical

    def tick(self, now: float, random: Random) -> Sequence[Envelope]:
        """Broadcast the buffer, and, when this peer was drawn, its model to all."""
        if self.joining:
            return [Envelope(self._targets[random.randrange(len(self._targets))], Message("ask", self.peer))]
        if self.options.exchange == "push-sum":
            return self._push(now)
        envelopes = self._broadcast(now)
        if self.options.unify and self._is_hub(now):
            everybody = (j for j in range(self._count) if j != self.peer)
            envelopes += self._to(everybody, "unify", self._model, now)
        return envelopes

    def receive(self, message: Message, now: float) -> Message | None:
        """Add a share of what came, unless it is too old or over the cap."""
        if message.kind == "ask":
            return None if self.joining else Message("give", self.peer, self._snapshot(self.arrays, now))
        snapshot = message.snapshot
        if snapshot is None or self._refuses(message.kind, snapshot, now):
            return None
        if message.kind in ("unify", "give"):
            self._replace(snapshot, message.kind)
        elif not self.joining:
            self._mix(message.kind, snapshot)
        return None

    def delivered(self, to: int, now: float) -> None:
        """A message came through, and there is no answer to it."""
        self._sent.pop(to, None)

    def lost(self, to: int, now: float) -> None:
        """A broadcast is not repeated; a share that was pushed comes back."""
        self.guard.count(to, "dropped")
        share = self._sent.pop(to, None)
        if share is not None:
            self._model, self._weight = _sum(self._model, share.arrays), self._weight + share.weight

    def _broadcast(self, now: float) -> list[Envelope]:
        if self.options.exchange == "model":
            return self._to(self._targets, "model", self._model, now)
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            return []
        if self.options.own != 1.0:
            self._model = _sum(self._model, _times(buffer, self.options.own - 1.0))
        return self._to(self._targets, "update", buffer, now)

    def _to(self, peers: Iterable[int], kind: str, arrays: Arrays, now: float) -> list[Envelope]:
        message = Message(kind, self.peer, self._snapshot(arrays, now))
        return [Envelope(j, message) for j in peers]

    def _push(self, now: float) -> list[Envelope]:
        """Equal shares to those whose last one came through, and to itself."""
        free = [j for j in self._targets if j not in self._sent]
        share = 1.0 / (len(free) + 1)
        sent = _times(self._model, share)
        weight = self._weight * share
        for j in free:
            self._sent[j] = self._snapshot(sent, now, weight)
            self._model = _sum(self._model, _times(sent, -1.0))
            self._weight -= weight
        return [Envelope(j, Message("push", self.peer, self._sent[j])) for j in free]

    def _is_hub(self, now: float) -> bool:
        """Whether this peer was drawn for a period that went by since it was looked at last."""
        last, self._period = self._period, int(now / self.options.period)
        first = max(last, self._period - 64 * self._count)  # older ones are of no interest
        return any(_hub(self.options.seed, k, self._count) == self.peer for k in range(first, self._period))

    def _refuses(self, kind: str, snapshot: Snapshot, now: float) -> bool:
        """Count and drop what does not hold; what push-sum pushed is never dropped: it would change the mean."""
        if self.guard.refuse(snapshot, self._model, self.peer, self.version) is not None:
            return True
        if kind in ("push", "give"):
            return False
        if now - snapshot.sent > self.options.max_delay:
            self.guard.count(snapshot.peer, "too old")
            return True
        cap = self.options.max_received
        period = int(now / self.options.period)
        if kind == "unify" or cap is None:
            return False
        if self._received[period] >= cap:
            self.guard.count(snapshot.peer, "over cap")
            return True
        self._received = Counter({period: self._received[period] + 1})
        return False

    def _replace(self, snapshot: Snapshot, kind: str) -> None:
        if kind == "give" and not self.joining:
            return
        self.joining = False
        self._model = snapshot.arrays
        self.reflects = {**snapshot.reflects, self.peer: max(self.version, snapshot.reflects.get(self.peer, 0))}
        self.version = self.reflects[self.peer]
        self.unified += kind == "unify"

    def _mix(self, kind: str, snapshot: Snapshot) -> None:
        if kind == "push":
            self._model, self._weight = _sum(self._model, snapshot.arrays), self._weight + snapshot.weight
        else:
            q = self._row.get(snapshot.peer, 0.0)
            towards = snapshot.arrays if kind == "update" else _sum(snapshot.arrays, _times(self._model, -1.0))
            self._model = _sum(self._model, _times(towards, q))
        for peer, version in snapshot.reflects.items():
            self.reflects[peer] = max(version, self.reflects.get(peer, 0))

    def _snapshot(self, arrays: Arrays, now: float, weight: float = 1.0) -> Snapshot:
        self._serial += 1
        known = dict(self.reflects)
        return Snapshot(self.peer, self.incarnation, self.version, self._serial, arrays, known, weight, now)


def _hub(seed: int, period: int, count: int) -> int:
    """The peer that all draw for a period, without a word: SplitMix64 of its number."""
    z = (seed * 0xD1B54A32D192ED03 + (period + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return (z ^ (z >> 31)) % count


def _sum(a: Arrays, b: Sequence[NDArray[Any]]) -> Arrays:
    return tuple((x + y).astype(x.dtype, copy=False) for x, y in zip(a, b, strict=True))


def _times(a: Arrays, factor: float) -> Arrays:
    return tuple(x * x.dtype.type(factor) for x in a)
