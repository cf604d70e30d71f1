"""The gossip core: two independent clocks, version vectors, and three ways to mix.

Mitra and Ulukus, "Scale-Robust Timely Asynchronous Decentralized Learning" (arXiv:2404.19749): a peer updates its model
on its own data and, by another clock, mixes it with that of a peer chosen at random. There is no server and no barrier.
With n peers that are all neighbours, update rate mu and mixing rate lambda, a model misses mu H_(n-1) / lambda updates
of another peer on average, H being the harmonic number: a capacity that grows as log n keeps that bounded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.guard import Guard
from baechi.replicas.holder import Holder
from baechi.replicas.peer import Arrays, Change, Envelope, Message, Snapshot, norm

__all__ = ["Choose", "Gossip", "GossipOptions", "Mixing"]

Mixing: TypeAlias = Literal["symmetric", "pull", "push-sum"]
Choose: TypeAlias = Callable[[Random, float], int | None]
"""From randomness and the time to a neighbour, or None when there is none."""

_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 0.5, 30.0
_TRIES = 4


@dataclass(frozen=True, slots=True)
class GossipOptions:
    """How a peer mixes.

    Attributes:
        mixing: ``symmetric``: both of a pair move towards the other, so the mean of all stays; ``pull``: only the one
            that asked moves, so the mean wanders; ``push-sum``: half goes one way, with a weight that makes the mean
            exact where links go one way.
        weight: how far towards the other: 0.5 is the average of both.
        max_staleness: see `Guard`; a peer that lags is not mixed in, yet gets what it lacks.
        max_distance: see `Guard`.
        rule: robust aggregation of the newest snapshots of `newest` peers and one's own, by a name of
            `baechi.replicas.aggregate`; it asks, as ``pull`` does.
        rule_options: of the rule.
        newest: how many peers' snapshots are kept for the rule.
        adaptive: not of the paper: local changes are divided by 1 + adaptive * variance of what others sent.
        momentum: not of the paper: of the mixing, as in the heavy-ball method.
        delay: not of the paper: seconds between a snapshot's arrival and its effect.

    Raises:
        BaechiError: B801 on a value that makes no sense.
    """

    mixing: Mixing = "symmetric"
    weight: float = 0.5
    max_staleness: int | None = None
    max_distance: float | None = None
    rule: str | None = None
    rule_options: Mapping[str, Any] = field(default_factory=dict)
    newest: int = 8
    adaptive: float = 0.0
    momentum: float = 0.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        known = get_args(Mixing)
        if self.mixing not in known:
            raise BaechiError("B801", f"there is no mixing '{self.mixing}'", help="one of: " + ", ".join(known))
        limits = {"weight": (0.0, 1.0), "momentum": (0.0, 1.0), "adaptive": (0.0, np.inf), "delay": (0.0, np.inf)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high or (name == "momentum" and value == high):
                raise BaechiError("B801", f"{name} is {value}", help=f"a number from {low:g} to {high:g}")
        if self.mixing == "push-sum" and (self.rule or self.momentum or self.delay):
            what = "push-sum's shares add up to the whole: a rule, momentum or delay would lose some"
            raise BaechiError("B801", what, help="mix symmetric or pull")


class Gossip(Holder):
    """A peer of the gossip core.

    Args:
        peer: which one it is.
        arrays: its model at the start.
        options: how it mixes.
        choose: picks a neighbour.
        incarnation: one more after each restart.
        joining: whether the model is to be replaced by the first sound one that comes: a late joiner's, or of a peer
            that was restarted.

    Example:
        >>> left, right = (Gossip(i, (np.full(1, 2.0 * i),), choose=lambda random, now, j=1 - i: j) for i in (0, 1))
        >>> [(to, message)] = left.tick(0.0, Random(0))
        >>> left.receive(right.receive(message, 0.1), 0.2)
        >>> left.arrays[0], right.arrays[0]
        (array([1.]), array([1.]))
    """

    def __init__(
        self,
        peer: int,
        arrays: Arrays,
        options: GossipOptions = GossipOptions(),
        *,
        choose: Choose,
        incarnation: int = 0,
        joining: bool = False,
    ) -> None:
        guard = Guard.of(arrays, max_staleness=options.max_staleness, max_distance=options.max_distance)
        super().__init__(peer, arrays, guard, incarnation, joining)
        self.options, self._choose = options, choose
        self._asked: dict[int, Snapshot | None] = {}
        self._kept: dict[int, Snapshot] = {}
        self._waiting: list[tuple[float, Snapshot, Arrays]] = []
        self._velocity: Arrays | None = None
        self._spread = _Welford()
        self._backoff: dict[int, tuple[int, float]] = {}

    @property
    def scale(self) -> float:
        """What local changes are multiplied with; 1 unless `adaptive`."""
        return 1.0 / (1.0 + self.options.adaptive * self._spread.variance)

    def learned(self, arrays: Arrays, since: Arrays, now: float) -> Sequence[Envelope]:
        """Local steps took the model from `since` to `arrays`: one update more of its own."""
        self.settle(now)
        scale = self.scale * self._share()
        if self._model is since and scale == 1.0:
            self._model = arrays
        else:
            self._add(
                [np.subtract(a, s, dtype=a.dtype) * a.dtype.type(scale) for a, s in zip(arrays, since, strict=True)]
            )
        self._learn()
        return ()

    def settle(self, now: float) -> None:
        """Mix in what was delayed until now."""
        while self._waiting and self._waiting[0][0] <= now:
            _, snapshot, against = self._waiting.pop(0)
            self._mix(snapshot, against)

    def tick(self, now: float, random: Random) -> Sequence[Envelope]:
        """Turn to one neighbour that is not left alone for a while."""
        self.settle(now)
        for _ in range(_TRIES):
            to = self._choose(random, now)
            if to is None:
                return ()
            if to not in self._asked and self._backoff.get(to, (0, now))[1] <= now:
                return (Envelope(to, self._message(to, now)),)
        return ()

    def receive(self, message: Message, now: float) -> Message | None:
        """Mix what came, answer what was asked."""
        self.settle(now)
        sender, snapshot = message.sender, message.snapshot
        self._backoff.pop(sender, None)
        sent = self._asked.pop(sender, None) if message.kind == "give" else None
        answer = None
        if message.kind in ("ask", "swap") and not self.joining:
            answer = Message("give", self.peer, self.snapshot(now))
        if snapshot is not None:
            why = self.guard.refuse(snapshot, self.arrays, self.peer, self.version)
            if why is None:
                self._take(snapshot, now, sent.arrays if sent is not None else self._model)
            elif why == "replayed" and message.kind == "swap":
                return None
        return answer

    def lost(self, to: int, now: float) -> None:
        """No answer: leave that peer alone for a while, twice as long each time; a share that was pushed comes back."""
        sent = self._asked.pop(to, None)
        if sent is not None and self.options.mixing == "push-sum":
            self._add(sent.arrays, sent.weight)
        failures = self._backoff.get(to, (0, 0.0))[0] + 1
        wait = min(_FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1), _LAST_BACKOFF_SECONDS)
        self._backoff[to] = (failures, now + wait)
        self.guard.count(to, "dropped")

    def delivered(self, to: int, now: float) -> None:
        """A message came through, and there is no answer to it."""
        self._asked.pop(to, None)

    def ignored(self, now: float) -> dict[int, str]:
        """Who is left alone now, and why."""
        return {
            peer: f"no answer {failures} times, {until - now:.1f} s to go"
            for peer, (failures, until) in sorted(self._backoff.items())
            if until > now
        }

    def snapshot(self, now: float) -> Snapshot:
        """The model as it is, to be sent; each is another message."""
        return self._snapshot(self.arrays, now)

    def _message(self, to: int, now: float) -> Message:
        if self.joining or self.options.rule is not None or self.options.mixing == "pull":
            self._asked[to] = None
            return Message("ask", self.peer)
        if self.options.mixing == "symmetric":
            self._asked[to] = sent = self.snapshot(now)
            return Message("swap", self.peer, sent)
        half: Arrays = tuple((a * 0.5).astype(a.dtype, copy=False) for a in self._model)
        self._asked[to] = sent = self._snapshot(half, now, self._weight * 0.5)
        self._model = tuple(a - h for a, h in zip(self._model, half, strict=True))
        self._weight -= sent.weight
        return Message("push", self.peer, sent)

    def _take(self, snapshot: Snapshot, now: float, against: Arrays) -> None:
        if self.joining:
            self._model, self._weight, self.joining = snapshot.arrays, 1.0, False
            self._witness(snapshot)
            self.version = self.reflects[self.peer]
        elif self.options.mixing == "push-sum":
            self._add(snapshot.arrays, snapshot.weight)
            self._witness(snapshot)
        elif self.options.delay:
            self._waiting.append((now + self.options.delay, snapshot, against))
        else:
            self._mix(snapshot, against)

    def _mix(self, snapshot: Snapshot, against: Arrays) -> None:
        """Move towards a model, from the one that it was sent in exchange for: steps made meanwhile stay."""
        target = snapshot.arrays
        if self.options.rule is not None:
            try:
                target, against = self._robust(snapshot, self.options.rule), self._model
            except BaechiError:  # the rule needs more models to outvote so many hostile ones
                self.guard.count(snapshot.peer, "too few")
                return
        change: Change = [
            np.subtract(y, x, dtype=x.dtype) * x.dtype.type(self.options.weight)
            for y, x in zip(target, against, strict=True)
        ]
        if self.options.adaptive:
            self._spread.add(norm(change))
        if self.options.momentum:
            before = self._velocity or tuple(np.zeros_like(c) for c in change)
            change = self._velocity = tuple(
                v * v.dtype.type(self.options.momentum) + c for v, c in zip(before, change, strict=True)
            )
        self._add(change)
        self._witness(snapshot)

    def _robust(self, snapshot: Snapshot, rule: str) -> Arrays:
        """What a rule makes of the newest snapshot of each of some peers and of one's own model.

        Raises:
            BaechiError: B822 while there are too few of them for the rule's `f`.
        """
        from baechi.replicas.rules import aggregate

        self._kept.pop(snapshot.peer, None)
        self._kept[snapshot.peer] = snapshot
        while len(self._kept) > self.options.newest:
            del self._kept[next(iter(self._kept))]
        rows = [self._model, *(s.arrays for s in self._kept.values())]
        shards = [np.stack([row[k].reshape(-1) for row in rows]) for k in range(len(self._model))]
        found = aggregate(rule, shards, **self.options.rule_options)
        return tuple(np.asarray(f).reshape(x.shape) for f, x in zip(found, self._model, strict=True))


@dataclass
class _Welford:
    """Mean and variance of numbers that come one by one."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.squares += off * (value - self.mean)

    @property
    def variance(self) -> float:
        return self.squares / (self.count - 1) if self.count > 1 else 0.0
