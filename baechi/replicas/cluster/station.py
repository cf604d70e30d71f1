"""One peer of a cluster, whatever carries it: its stage's work, and its part in the rings across clusters.

The algorithm is that of `baechi.replicas.ravnest`: a `Worker` says what to do next, `Member`s what goes round.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from baechi.errors import BaechiError
from baechi.replicas.ravnest.layout import Layout, Seat
from baechi.replicas.ravnest.pipeline import Batch, Parcel, Worker
from baechi.replicas.ravnest.rings import Floats, Member, Ring
from baechi.replicas.ravnest.train import averaged_tensors

__all__ = ["Chunk", "Rules", "Send", "Station"]

_KEPT = 2_000


class Chunk(NamedTuple):
    """A message of a ring: which average and slice, of which members, in which round, to whom."""

    turn: int
    ring: int
    members: tuple[int, ...]
    round: int


class Rules(Protocol):
    """What `Roll` gives."""

    def living(self) -> tuple[int, ...]:
        """As `Roll.living`."""

    def settle(self, turn: int, ring: int, cluster: int, members: tuple[int, ...]) -> tuple[int, ...]:
        """As `Roll.settle`."""


Send = Callable[[int, str, Any], None]
"""Brings something to a peer: its number, and a method of `Station` with its arguments; waits for no answer."""


class _Again(Exception):
    """The members of a ring are others now."""


class Station:
    """A peer.

    Args:
        name: of the peer.
        send: reaches the others.
    """

    def __init__(self, name: str, send: Send) -> None:
        self._name, self._send = name, send
        self._news = threading.Condition()
        self._early: list[Parcel] = []
        self._chunks: dict[Chunk, Floats] = {}
        self._lost: BaechiError | None = None
        self._gone: set[int] = set()
        self._worker: Worker | None = None
        self._layout: Layout | None = None
        self._crew: tuple[int, ...] = ()
        self._seat = Seat()
        self._rings: dict[int, Ring] = {}
        self._values: Mapping[str, Tensor] = {}
        self._began = self._busy = 0.0
        self._first = self._done = self._turn = self._most = self._stashed = self._sent = self._ring_sent = 0
        self._losses: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._averages: list[float] = []

    # what others call

    def accept(self, parcel: Parcel) -> None:
        """A neighbour sends activations or gradients."""
        with self._news:
            if self._worker is None:
                self._early.append(parcel)
            else:
                self._worker.accept(parcel)
            self._news.notify_all()

    def chunk(self, key: Chunk, chunk: Floats) -> None:
        """The member before this one in a ring sends a part of its slice."""
        with self._news:
            self._chunks[key] = chunk
            self._news.notify_all()

    def gone(self, cluster: int, why: str) -> None:
        """A cluster has lost a peer; where it is this one's, this one ends too."""
        with self._news:
            self._gone.add(cluster)
            if cluster == self._seat.cluster and self._lost is None:
                self._lost = BaechiError("B808", f"cluster {cluster + 1} has lost a peer: {why}")
            self._news.notify_all()

    def weights(self, done: int = 0, averages: int = 0) -> dict[str, Floats]:
        """The parameters and buffers of this peer's stage, once it is past so many micro-batches and averages."""
        with self._news:
            self._news.wait_for(lambda: (self._done >= done and self._turn >= averages) or self._lost is not None)
            return {name: np.array(value.detach().numpy()) for name, value in self._values.items()}

    def status(self) -> dict[str, Any]:
        """How it is."""
        with self._news:
            stage = None if self._worker is None else self._worker.stage
            seconds = max(time.monotonic() - self._began, 1e-9) if self._began else 0.0
            staleness = stage.staleness if stage is not None else []
            return {
                "peer": self._name,
                "cluster": self._seat.cluster,
                "stage": self._seat.stage,
                "microbatches": self._done,
                "microbatches_per_second": (self._done - self._first) / seconds if seconds else 0.0,
                "busy": self._busy / seconds if seconds else 0.0,
                "losses": list(self._losses),
                "updates": 0 if stage is None else stage.version,
                "staleness": max(staleness, default=0),
                "mean_staleness": sum(staleness) / len(staleness) if staleness else 0.0,
                "old_weights": self._stashed,
                "under_way": self._most,
                "sent_bytes": self._sent,
                "ring_bytes": self._ring_sent,
                "averages": len(self._averages),
                "average_seconds": sum(self._averages) / len(self._averages) if self._averages else None,
            }

    # what the script of this peer calls

    def take_seat(
        self,
        layout: Layout,
        seat: Seat,
        worker: Worker | None = None,
        rings: tuple[Ring, ...] = (),
        values: Mapping[str, Tensor] | None = None,
        *,
        done: int = 0,
        turn: int = 0,
    ) -> None:
        """From here on it works as a stage, after so many micro-batches and averages before a checkpoint."""
        with self._news:
            self._layout, self._seat, self._worker = layout, seat, worker
            self._crew = () if seat.cluster is None else layout.peers[seat.cluster]
            self._values, self._first, self._done, self._turn = values or {}, done, done, turn
            own, stage = seat.cluster, seat.stage
            self._rings = {k: r for k, r in enumerate(rings) if own is not None and r.stages[own] == stage}
            for parcel in self._early:
                if worker is not None:
                    worker.accept(parcel)
            self._early = []

    def work(self, batches: Iterator[Batch], first: int, count: int) -> list[float]:
        """Work until so many micro-batches have come back through this stage.

        Args:
            batches: where the first stage takes them from.
            first: number of the first one.
            count: how many.

        Returns:
            In the last stage, the loss of each.

        Raises:
            BaechiError: B808 when another peer of the cluster is gone; B858 when the batches end before.
        """
        worker, crew = self._worker, self._crew
        assert worker is not None  # only who has a seat works
        self._began = self._began or time.monotonic()
        is_last = worker.index == len(crew) - 1
        left, fed = count, 0
        while left:
            parcel = self._next(worker, fed < count)
            if parcel is None:
                inputs, target = _draw(batches, first + fed)
                worker.accept(Parcel(0, first + fed, inputs, False, target))
                fed += 1
                continue
            began = time.monotonic()
            out = worker.work(parcel)
            with self._news:
                self._busy += time.monotonic() - began
                self._stashed = max(self._stashed, worker.stage.stashed)
                if out is not None:
                    self._sent += out.nbytes
                if is_last:
                    self._losses.append((parcel.micro, worker.losses[parcel.micro]))
                self._done += parcel.is_back or is_last
                self._news.notify_all()
            left -= parcel.is_back or is_last
            if out is not None:
                self._send(crew[out.to], "accept", (out,))
        return [worker.losses.pop(first + i) for i in range(count)] if is_last else []

    def average(self, turn: int, rules: Rules, *, with_state: bool = False) -> None:
        """Put the mean over the clusters into this stage's parameters, all rings at once.

        Args:
            turn: which average.
            rules: who takes part.
            with_state: whether the optimiser's state is averaged too.
        """
        assert self._worker is not None
        began = time.monotonic()
        tensors = averaged_tensors(self._worker.stage, with_state)
        with ThreadPoolExecutor(max(1, len(self._rings))) as pool:
            found = list(pool.map(lambda k: self._ring(turn, k, tensors, rules), self._rings))
        with torch.no_grad(), self._news:
            for vector, names in found:
                pieces = torch.from_numpy(vector).split_with_sizes([tensors[n].numel() for n in names])
                for name, piece in zip(names, pieces, strict=True):
                    tensors[name].copy_(piece.view_as(tensors[name]))
            self._averages.append(time.monotonic() - began)
            self._turn = turn + 1
            self._news.notify_all()
            self._chunks = {key: chunk for key, chunk in self._chunks.items() if key.turn > turn}

    def _next(self, worker: Worker, may_feed: bool) -> Parcel | None:
        """What to do; None when the first stage is to take a batch."""
        with self._news:
            while True:
                if self._lost is not None:
                    raise self._lost
                parcel = worker.take()
                if parcel is not None:
                    self._most = max(self._most, worker.under_way if worker.index == 0 else 0)
                    return parcel
                if may_feed and worker.index == 0 and worker.may_admit:
                    return None
                self._news.wait()

    def _ring(self, turn: int, number: int, tensors: Mapping[str, Tensor], rules: Rules) -> tuple[Floats, list[str]]:
        """The mean of a slice, and the tensors in it."""
        ring, own = self._rings[number], self._seat.cluster
        assert own is not None  # only who has a seat is in a ring
        whole = {n: tensors[n].dtype for n in ring.names}
        names = [n for n, t in tensors.items() if whole.get(n.partition("/")[0]) == t.dtype]
        vector = np.concatenate([tensors[n].detach().numpy().reshape(-1) for n in names])
        members = rules.living()
        while True:
            try:
                mean = self._go_round(Chunk(turn, number, members, 0), ring, vector)
            except _Again:
                members = rules.living()
                continue
            settled = rules.settle(turn, number, own, members)
            if settled == members:
                return mean, names
            members = settled

    def _go_round(self, key: Chunk, ring: Ring, vector: Floats) -> Floats:
        """Carry a member's messages; raises `_Again` when another member is gone."""
        members, layout, own = key.members, self._layout, self._seat.cluster
        assert layout is not None  # only who has a seat is in a ring
        assert own is not None
        if own not in members:
            with self._news:
                self._news.wait_for(lambda: self._lost is not None)
            raise self._lost or _Again
        rank = members.index(own)
        member = Member(rank, len(members), vector)
        after = members[(rank + 1) % len(members)]
        to = layout.peers[after][ring.stages[after]]
        for turn in range(member.rounds):
            step = key._replace(round=turn)
            self._send(to, "chunk", (step, member.outgoing(turn)))
            member.accept(turn, self._wait(step))
        with self._news:
            self._ring_sent += member.sent_bytes
        return member.result

    def _wait(self, key: Chunk) -> Floats:
        with self._news:
            while key not in self._chunks:
                if self._lost is not None:
                    raise self._lost
                if self._gone & set(key.members):
                    raise _Again
                self._news.wait()
            return self._chunks.pop(key)


def _draw(batches: Iterator[Batch], micro: int) -> Batch:
    try:
        return next(batches)
    except StopIteration:
        what = f"there are {micro} micro-batches, and more are asked for"
        raise BaechiError("B858", what, help="give an endless iterator, or ask for fewer") from None
