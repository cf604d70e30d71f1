"""What holds a replica's gossip: its peer, the thread that mixes, and where its workers hand in what they learned.

A placed replica may have several workers, each with its share of the model. All are given what others taught the
replica at the same step boundary: what came until the first of them reaches it. So no worker ever computes with another
version than its fellows, and training waits for nobody.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.cluster.history import History
from baechi.replicas.cluster.peers import Carried, make_peer
from baechi.replicas.draco_options import DracoOptions
from baechi.replicas.gossip import GossipOptions
from baechi.replicas.peer import Arrays, Envelope, Message, norm, plus

__all__ = ["Call", "Hub", "HubOptions", "Lost"]

_T = TypeVar("_T")

_JOIN_POLL_SECONDS = 0.2
_JOIN_PATIENCE_SECONDS = 60.0
_LEAST_PATIENCE_SECONDS = 2.0
_PATIENCE_ROUND_TRIPS = 8.0
_KEPT_DELAYS = 2_000


class Lost(Exception):
    """A peer did not answer."""


Call = Callable[[int, Message, float], Message | None]
"""Tells a peer something and returns its answer; raises `Lost` when there is none after so many seconds."""


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Of all hubs of a run.

    Attributes:
        count: replicas at the start.
        shares: workers of each.
        gossip: how peers mix.
        topology: who is whose neighbour.
        capacity: exchanges a second that a replica begins, on average.
        seed: of the choices of all.
        draco: how DRACO exchanges, which then takes the place of gossip.
        epoch: seconds of the wall clock at which the run began; all tell time from there.
    """

    count: int
    shares: int = 1
    gossip: GossipOptions = field(default_factory=GossipOptions)
    topology: str = "complete"
    capacity: float = 5.0
    seed: int = 0
    draco: DracoOptions | None = None
    epoch: float = 0.0


class Hub:
    """One replica's gossip.

    Args:
        peer: which replica.
        options: of the run.
        call: reaches the others.
        incarnation: one more after each restart.
        joining: whether the model is to be that of a running replica.
    """

    def __init__(
        self, peer: int, options: HubOptions, call: Call, *, incarnation: int = 0, joining: bool = False
    ) -> None:
        self.peer, self.options, self.incarnation = peer, options, incarnation
        self._call, self._joining = call, joining
        self._random = Random(f"{options.seed}/{peer}/{incarnation}")
        self._lock = threading.Condition()
        self._members: tuple[int, ...] = tuple(range(options.count))
        self._carried: Carried | None = None
        self._entered: dict[int, Arrays] = {}
        self._sizes: dict[int, int] = {}
        self._held: Arrays = ()
        self._mixed: Arrays | None = None
        self._handout: dict[int, Arrays | None] = {}
        self._arrived: dict[int, dict[int, Arrays]] = {}
        self._stopped = threading.Event()
        self._delays: list[float] = []
        self._round_trip = 0.0
        self._history = History()

    def meet(self, members: Sequence[int]) -> None:
        """Who is there now."""
        with self._lock:
            self._members = tuple(members)

    def enter(self, rank: int, arrays: Arrays) -> Arrays | None:
        """A worker has its share of the model; returns what it is to begin with instead, if anything.

        Raises:
            BaechiError: B803 when a replica that joins others finds none that gives it a model.
        """
        with self._lock:
            self._entered[rank], self._sizes[rank] = arrays, len(arrays)
            if len(self._entered) == self.options.shares:
                self._begin()
            if not self._lock.wait_for(lambda: self._carried is not None, _JOIN_PATIENCE_SECONDS):
                raise BaechiError("B803", f"not all {self.options.shares} workers of replica {self.peer} came")
            gossip = self._peer()
            if not self._joining:
                return None
            if not self._lock.wait_for(lambda: not gossip.joining, _JOIN_PATIENCE_SECONDS):
                what = f"replica {self.peer} found nobody to take a model from in {_JOIN_PATIENCE_SECONDS:.0f} s"
                raise BaechiError("B803", what, help="is another replica running?")
            self._held = gossip.arrays
            return self._share(gossip.arrays, rank)

    def boundary(self, rank: int, step: int, arrays: Arrays, loss: float | None) -> Arrays | None:
        """A worker is between two steps.

        Args:
            rank: the worker.
            step: how many it has made.
            arrays: its share after them; nobody writes to them any more.
            loss: of the last one, where this worker has it.

        Returns:
            Its share with what others taught, or None when that is nothing.
        """
        with self._lock:
            gossip = self._peer()
            if loss is not None:
                self._history.losses.append((step, loss))
            self._track(lambda: gossip.settle(self._now()))
            if step not in self._handout:
                self._handout[step], self._mixed = self._mixed, None
                self._arrived[step] = {}
            handout = self._handout[step]
            self._arrived[step][rank] = arrays
            taught = None if handout is None else self._share(handout, rank)
            if len(self._arrived[step]) == self.options.shares:
                self._complete(gossip, step)
                if self.options.shares == 1 and handout is not None:
                    return self._held
        return None if taught is None else plus(arrays, taught)

    def receive(self, message: Message) -> Message | None:
        """Another replica says something; None before this one has a model."""
        with self._lock:
            if self._carried is None:
                return None
            answer = self._hear(message)
            self._history.sent += 0 if answer is None else answer.nbytes
            return answer

    def put_on_wire(self, nbytes: int) -> None:
        """Count bytes that a worker sent by other ways."""
        with self._lock:
            self._history.sent += nbytes

    def start(self) -> None:
        """Begin to mix."""
        threading.Thread(target=self._mix_forever, name=f"mix-{self.peer}", daemon=True).start()

    def stop(self) -> None:
        """Mix no more; answers go on."""
        self._stopped.set()

    def model(self) -> Arrays | None:
        """The model now; None before there is one."""
        with self._lock:
            return None if self._carried is None else self._carried.arrays

    def status(self) -> dict[str, Any]:
        """What a table shows: plain data."""
        with self._lock:
            gossip, history = self._carried, self._history
            now = self._now()
            return {
                "peer": self.peer,
                "incarnation": self.incarnation,
                "steps": history.steps,
                "rate": history.rate,
                "losses": list(history.losses),
                "version": gossip.version if gossip else 0,
                "reflects": dict(gossip.reflects) if gossip else {},
                "mixed": history.mixed,
                "refused": dict(gossip.guard.refused) if gossip else {},
                "refused_by_peer": {p: dict(c) for p, c in gossip.guard.by_peer.items()} if gossip else {},
                "ignored": gossip.ignored(now) if gossip else {},
                "apart": history.apart,
                "exchange_rate": history.exchange_rate,
                "exchange_seconds": list(self._delays),
                "step_intervals": list(history.intervals),
                "sent_bytes": history.sent,
            }

    def _begin(self) -> None:
        shares = [self._entered[rank] for rank in range(self.options.shares)]
        start: Arrays = tuple(a for share in shares for a in share)
        self._held, self._entered = start, {}
        self._carried = make_peer(
            self.peer,
            start,
            self.options,
            lambda: self._members,
            incarnation=self.incarnation,
            joining=self._joining,
        )
        self._lock.notify_all()

    def _peer(self) -> Carried:
        if self._carried is None:
            raise BaechiError("B803", f"replica {self.peer} has no model yet", help="call join() before step()")
        return self._carried

    def _share(self, arrays: Arrays, rank: int) -> Arrays:
        first = sum(self._sizes[r] for r in range(rank))
        return arrays[first : first + self._sizes[rank]]

    def _complete(self, peer: Carried, step: int) -> None:
        """All workers are past a boundary: their shares are one model of one version."""
        shares, handout = self._arrived.pop(step), self._handout.pop(step)
        whole: Arrays = tuple(a for rank in range(self.options.shares) for a in shares[rank])
        peer.learned(whole, self._held, self._now())
        if handout is None:
            self._held = whole
        elif self.options.shares == 1:
            self._held = peer.arrays
        else:
            self._held = plus(whole, handout)
        self._history.add(step, time.monotonic())

    def _hear(self, message: Message) -> Message | None:
        gossip = self._peer()
        if gossip.joining:
            answer = gossip.receive(message, self._now())
            self._lock.notify_all()
            return answer
        refused = gossip.guard.refused.total()
        answer = self._track(lambda: gossip.receive(message, self._now()))
        self._history.mixed += message.snapshot is not None and gossip.guard.refused.total() == refused
        return answer

    def _track(self, act: Callable[[], _T]) -> _T:
        """Do what may change the model, and note the change: the workers get it at their next boundary."""
        gossip = self._peer()
        before = gossip.arrays
        done = act()
        after = gossip.arrays
        if after is not before:
            change = tuple(np.subtract(a, b, dtype=a.dtype) for a, b in zip(after, before, strict=True))
            self._mixed = change if self._mixed is None else plus(self._mixed, change)
            self._history.apart = norm(change) / (norm(after) or 1.0)
        return done

    def _turn(self) -> Sequence[Envelope]:
        gossip = self._carried
        if gossip is None:
            return ()
        now = self._now()
        self._track(lambda: gossip.settle(now))
        return gossip.tick(now, self._random)

    def _mix_forever(self) -> None:
        while not self._stopped.wait(self._pause()):
            with self._lock:
                envelopes = self._turn()
            for envelope in envelopes:
                self._exchange(envelope)

    def _now(self) -> float:
        return time.time() - self.options.epoch

    def _pause(self) -> float:
        if self._carried is not None and self._carried.joining:
            return _JOIN_POLL_SECONDS
        return self._random.expovariate(self.options.capacity) if self.options.capacity > 0 else math.inf

    def _exchange(self, envelope: Envelope) -> None:
        began = time.monotonic()
        patience = max(_LEAST_PATIENCE_SECONDS, _PATIENCE_ROUND_TRIPS * self._round_trip)
        try:
            answer = self._call(envelope.to, envelope.message, patience)
        except Lost:
            with self._lock:
                self._peer().lost(envelope.to, self._now())
            return
        took = time.monotonic() - began
        with self._lock:
            self._history.exchanges += 1
            self._history.sent += envelope.message.nbytes
            self._round_trip = took if not self._delays else 0.8 * self._round_trip + 0.2 * took
            self._delays = [*self._delays[-_KEPT_DELAYS:], took]
            if answer is None:
                self._peer().delivered(envelope.to, self._now())
            else:
                self._hear(answer)
