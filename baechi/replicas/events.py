"""Peers of any algorithm under a virtual clock: the carrier that is deterministic and can be stopped anywhere."""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.clocks import TokenBucket
from baechi.replicas.conditions import Conditions
from baechi.replicas.peer import Arrays, Envelope, Message, Peer
from baechi.replicas.state import read_state, write_state

__all__ = ["Event", "Log", "Make", "Simulator", "Step"]

Make: TypeAlias = Callable[[int, int, bool], Peer]
"""From a peer's number, its incarnation, and whether it joins others that run already, to its state machine."""

Step: TypeAlias = Callable[[int, Arrays, int], Arrays]
"""Local training: from a peer's number, its model and how many updates it began before to the model after the update.

It must be a function of these alone, so that a resumed simulation gives the same numbers.
"""

_PLAIN = Conditions()
_MESSAGE_BYTES = 64  # of a message without a model


class Event(NamedTuple):
    """What happens when; the queue's order is total."""

    at: float
    number: int
    kind: str
    peer: int
    life: int
    data: Any = None


class Log(NamedTuple):
    """An update (other is -1) of a peer, or an exchange that it began with another and that came through."""

    at: float
    peer: int
    other: int


class _Request(NamedTuple):
    """A message on its way, or its answer."""

    to: int
    message: Message
    deadline: float


class Simulator:
    """Carries peers: trains them, rings their clocks, delivers, loses and delays their messages.

    The model that an update ends with is computed from the one at its beginning and takes effect at its end: what was
    mixed in meanwhile stays, as on a real machine.

    Args:
        peers: how many.
        make: makes a peer's state machine, at the start and after a crash.
        step: trains a peer.
        conditions: what the world is like.
        seed: of everything random.
        logs: whether to keep a log of updates and exchanges.

    Attributes:
        now: seconds.
        peers: the state machines; one that is down keeps the state in which it went.
        up: whether each peer runs.
        lives: incarnation of each peer.
        steps: how many updates of each came to an end.
        counts: messages ``sent``, ``delivered``, ``dropped``, ``late``, to a peer that is ``down``, ``partitioned``; and
            ``bytes`` sent.
        log: see `logs`.

    Raises:
        BaechiError: B843 when something is to happen to a peer that is not there.

    Example:
        >>> from baechi.replicas.gossip import Gossip
        >>> from baechi.replicas.topology import Chooser, parse_topology
        >>> pair = parse_topology("complete", 2)
        >>> start = [(np.zeros(1),), (np.ones(1),)]
        >>> world = Simulator(2, lambda i, life, joins: Gossip(i, start[i], choose=Chooser(pair, i)), lambda i, x, k: x)
        >>> world.run(20.0)
        >>> [float(peer.arrays[0][0]) for peer in world.peers]
        [0.5, 0.5]
    """

    def __init__(
        self,
        peers: int,
        make: Make,
        step: Step,
        conditions: Conditions = _PLAIN,
        *,
        seed: int = 0,
        logs: bool = False,
    ) -> None:
        for change in conditions.churn:
            if change.peer >= peers:
                raise BaechiError("B843", f"peer {change.peer} is to {change.what}, of {peers}", help="they begin at 0")
        late = {change.peer for change in conditions.churn if change.what == "join"}
        self.conditions, self.now = conditions, 0.0
        self.up = [i not in late for i in range(peers)]
        self.lives = [0] * peers
        self.steps = [0] * peers
        self.counts: Counter[str] = Counter()
        self.log: list[Log] | None = [] if logs else None
        self._make, self._step = make, step
        self._begun = [0] * peers
        self._trains = [False] * peers
        self._came = [False] * peers
        self._queue: list[Event] = []
        self._number = 0
        self._rng = np.random.default_rng(seed)
        self._random = Random(seed)
        bucket = conditions.burst
        rate = 1 / conditions.mixing.mean
        self._buckets = [TokenBucket(rate, bucket) for _ in range(peers)] if bucket is not None else []
        self.peers: list[Peer] = [make(i, 0, i in late) for i in range(peers)]
        for change in conditions.churn:
            self._at(change.at, "churn", change.peer, data=change.what)
        for i in range(peers):
            if self.up[i]:
                self._start(i)

    def run(self, until: float) -> None:
        """Simulate to a time, in seconds; it can go on from there."""
        while self._queue and self._queue[0].at <= until:
            event = heapq.heappop(self._queue)
            self.now = event.at
            self._happens(event)
        self.now = max(self.now, until)

    def save(self, path: str | Path) -> None:
        """Write the whole state to a file, at once or not at all.

        Raises:
            BaechiError: B404 when it cannot be written.
        """
        write_state(path, self.state())

    def state(self) -> dict[str, Any]:
        """All but `make` and `step`, as data that pickle; it changes when the simulation goes on."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_make", "_step")}

    @classmethod
    def resume(cls, path: str | Path, make: Make, step: Step, trusted: Sequence[str] = ()) -> "Simulator":
        """Go on from a file: with the same `make` and `step`, every number is as if it had never stopped.

        Args:
            path: what `save` wrote.
            make: as before.
            step: as before.
            trusted: modules whose classes the peers are made of, besides this package's and numpy's.

        Raises:
            BaechiError: B844 when the file is none of ours, or holds anything else.
        """
        return cls.of_state(read_state(path, trusted), make, step)

    @classmethod
    def of_state(cls, state: dict[str, Any], make: Make, step: Step) -> "Simulator":
        """Go on from what `state` gave."""
        world = cls.__new__(cls)
        world.__dict__.update(state, _make=make, _step=step)
        return world

    def _at(self, at: float, kind: str, peer: int, *, data: Any = None, life: int | None = None) -> None:
        self._number += 1
        life = self.lives[peer] if life is None else life
        heapq.heappush(self._queue, Event(at, self._number, kind, peer, life, data))

    def _happens(self, event: Event) -> None:
        i = event.peer
        if event.kind == "churn":
            self._churn(i, event.data)
        elif event.kind == "arrive":
            self._arrive(i, event.life, event.data)
        elif event.life != self.lives[i] or not self.up[i]:
            return  # the peer that waited for this is no more
        elif event.kind == "learn":
            self._learn(i, *event.data)
        elif event.kind == "tick":
            self._tick(i)
        elif event.kind == "answer":
            self._answer(i, event.data)
        else:
            self.peers[i].lost(event.data, self.now)

    def _start(self, i: int) -> None:
        self._came[i] = True
        self._train(i)
        self._ring(i)

    def _train(self, i: int) -> None:
        """Begin an update, unless the peer still waits for a first model."""
        if self._trains[i] or getattr(self.peers[i], "joining", False):
            return
        self._trains[i] = True
        since = self.peers[i].arrays
        arrays = self._step(i, since, self._begun[i])
        self._begun[i] += 1
        lasts = self.conditions.compute_of(i).sample(self._rng)
        self._at(self.now + lasts, "learn", i, data=(arrays, since))

    def _learn(self, i: int, arrays: Arrays, since: Arrays) -> None:
        self.steps[i] += 1
        self._trains[i] = False
        self._note(i, -1)
        self._send(i, self.peers[i].learned(arrays, since, self.now))
        self._train(i)

    def _ring(self, i: int) -> None:
        at = self.now + self.conditions.mixing.sample(self._rng)
        if self._buckets:
            at = self._buckets[i].ready(at)
        self._at(at, "tick", i)

    def _tick(self, i: int) -> None:
        if self._buckets:
            self._buckets[i].take(self.now)
        self._send(i, self.peers[i].tick(self.now, self._random))
        self._ring(i)

    def _send(self, i: int, envelopes: Sequence[Envelope]) -> None:
        deadline = self.now + self.conditions.timeout
        for to, message in envelopes:
            at = self._travel(i, to, message, deadline)
            if at is None:
                self._at(deadline, "timeout", i, data=to)
            else:
                self._at(at, "arrive", i, data=_Request(to, message, deadline))

    def _travel(self, a: int, b: int, message: Message, deadline: float) -> float | None:
        """When a message arrives; None when it never does, or too late."""
        c = self.conditions
        nbytes = _MESSAGE_BYTES + message.nbytes
        self.counts["sent"] += 1
        self.counts["bytes"] += nbytes
        at = self.now + c.latency.sample(self._rng)
        if c.bandwidth is not None:
            at += nbytes / max(c.bandwidth.sample(self._rng), 1e-9)
        why = None
        if c.drop and self._rng.random() < c.drop:
            why = "dropped"
        elif c.separated(a, b, self.now):
            why = "partitioned"
        elif at > deadline:
            why = "late"
        if why is not None:
            self.counts[why] += 1
            return None
        return at

    def _arrive(self, sender: int, life: int, request: _Request) -> None:
        """At the one that was asked; an acknowledgement without a model comes back at once."""
        to = request.to
        if not self.up[to]:
            self.counts["down"] += 1
            self._at(request.deadline, "timeout", sender, data=to, life=life)
            return
        self.counts["delivered"] += 1
        answer = self.peers[to].receive(request.message, self.now)
        self._train(to)
        if life != self.lives[sender] or not self.up[sender]:
            return
        if answer is None:
            self._note(sender, to)
            self.peers[sender].delivered(to, self.now)
            return
        at = self._travel(to, sender, answer, request.deadline)
        if at is None:
            self._at(request.deadline, "timeout", sender, data=to)
        else:
            self._at(at, "answer", sender, data=answer)

    def _answer(self, i: int, answer: Message) -> None:
        self.counts["delivered"] += 1
        self._note(i, answer.sender)
        self.peers[i].receive(answer, self.now)
        self._train(i)

    def _note(self, peer: int, other: int) -> None:
        if self.log is not None:
            self.log.append(Log(self.now, peer, other))

    def _churn(self, i: int, what: str) -> None:
        if what in ("crash", "leave"):
            self.up[i] = self._trains[i] = False
            return
        if self.up[i]:
            return
        if what == "restart" or self._came[i]:
            self.lives[i] += 1
            self.peers[i] = self._make(i, self.lives[i], True)
        self.up[i] = True
        self._start(i)
