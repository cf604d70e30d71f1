"""DRACO: computation and communication on schedules of their own, row-stochastic weights, late and surplus news dropped.

Jeong and Kountouris, "DRACO: Decentralized Asynchronous Federated Learning over Row-Stochastic Wireless Networks"
(arXiv:2406.13533). What the sources that we read leave open is an option here: whether a message has the sender's
updates since its last one or its model, and what a peer's own update counts. Updates alone draw no models together:
without unification each peer ends at an optimum of its own. Push-sum: Assran et al., "Stochastic Gradient Push"
(arXiv:1811.10792).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from baechi.replicas.draco_options import DracoOptions
from baechi.replicas.guard import Guard
from baechi.replicas.holder import Holder
from baechi.replicas.peer import Arrays, Envelope, Message, Snapshot, plus

__all__ = ["Draco"]

_MASK = (1 << 64) - 1


class Draco(Holder):
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
        >>> import numpy as np
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
        super().__init__(peer, arrays, Guard.of(arrays), incarnation, joining)
        self.options = options or DracoOptions()
        self.unified = 0
        self._row, self._targets, self._count = dict(row), tuple(targets), count
        self._buffer: Arrays | None = None
        self._received: Counter[int] = Counter()
        self._period = 0  # the last whose hub was drawn
        self._sent: dict[int, Snapshot] = {}

    def learned(self, arrays: Arrays, since: Arrays, now: float) -> Sequence[Envelope]:
        """The update takes effect here at once, and waits in the send buffer for the transmission clock."""
        if self.joining:
            return ()
        scale = self._share()
        change = tuple((a - s) * a.dtype.type(scale) for a, s in zip(arrays, since, strict=True))
        self._model = arrays if self._model is since and scale == 1.0 else plus(self._model, change)
        if self.options.exchange == "update":
            self._buffer = change if self._buffer is None else plus(self._buffer, change)
        self._learn()
        return ()

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
            self._add(share.arrays, share.weight)

    def settle(self, now: float) -> None:
        """Nothing waits here: what comes takes effect at once, or never."""

    def ignored(self, now: float) -> dict[int, str]:
        """Nobody: a message that is lost is not sent again."""
        return {}

    def _broadcast(self, now: float) -> list[Envelope]:
        if self.options.exchange == "model":
            return self._to(self._targets, "model", self._model, now)
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            return []
        if self.options.own != 1.0:
            self._add(_times(buffer, self.options.own - 1.0))
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
            self._add(_times(sent, -1.0), -weight)
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
            self._add(snapshot.arrays, snapshot.weight)
        else:
            q = self._row.get(snapshot.peer, 0.0)
            towards = snapshot.arrays if kind == "update" else plus(snapshot.arrays, _times(self._model, -1.0))
            self._add(_times(towards, q))
        self._witness(snapshot)


def _hub(seed: int, period: int, count: int) -> int:
    """The peer that all draw for a period, without a word: SplitMix64 of its number."""
    z = (seed * 0xD1B54A32D192ED03 + (period + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return (z ^ (z >> 31)) % count


def _times(a: Arrays, factor: float) -> Arrays:
    return tuple(x * x.dtype.type(factor) for x in a)
