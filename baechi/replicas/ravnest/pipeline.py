"""An asynchronous pipeline without bubbles: who works on which micro-batch when.

A worker takes what comes back before what goes forward. The first admits a micro-batch only while fewer than there
are stages are under way, so no gradient is applied more than stages - 1 updates late. A worker is a state machine: a
carrier asks it for its next work, lets it do it, and brings what it sends to its neighbour. The one here has a virtual
clock, and always does the same.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from baechi.errors import BaechiError
from baechi.replicas.ravnest.stage import Stage, Tensors

__all__ = ["Carried", "Pace", "Parcel", "Span", "Worker", "run", "workers_of"]

Batch = tuple[Tensors, Any]
"""Inputs of the first stage, and the target."""


_ON_ITS_WAY = -1


class Parcel(NamedTuple):
    """What one worker sends to a neighbour.

    Attributes:
        to: index of the worker.
        micro: which micro-batch.
        tensors: activations going forward, gradients coming back.
        is_back: which of them.
        target: of the micro-batch, on its way to the loss.
    """

    to: int
    micro: int
    tensors: Tensors
    is_back: bool
    target: Any = None

    @property
    def nbytes(self) -> int:
        """What goes over the wire."""
        return sum(t.numel() * t.element_size() for t in self.tensors)


class Worker:
    """One stage's worker.

    Args:
        index: of the stage.
        count: of stages.
        stage: what it computes.
        most: how many micro-batches the first worker lets be under way; as many as there are stages when None.

    Attributes:
        losses: in the last worker, by micro-batch.
    """

    def __init__(self, index: int, count: int, stage: Stage, most: int | None = None) -> None:
        self.index, self.stage = index, stage
        self._count, self._most = count, count if most is None else most
        self._ahead: deque[Parcel] = deque()
        self._back: deque[Parcel] = deque()
        self._admitted = self._finished = 0
        self.losses: dict[int, float] = {}

    @property
    def under_way(self) -> int:
        """In the first worker: micro-batches that were admitted and are not yet back."""
        return self._admitted - self._finished

    @property
    def may_admit(self) -> bool:
        """Whether the first worker takes another micro-batch now."""
        return self.under_way < self._most

    def accept(self, parcel: Parcel) -> None:
        """Something came from a neighbour, or from the data."""
        (self._back if parcel.is_back else self._ahead).append(parcel)

    def take(self) -> Parcel | None:
        """The next to work on: what comes back first; None when there is nothing that may be begun."""
        if self._back:
            return self._back.popleft()
        if not self._ahead or (self.index == 0 and not self.may_admit):
            return None
        self._admitted += 1
        return self._ahead.popleft()

    def work(self, parcel: Parcel) -> Parcel | None:
        """Do it; what to send, None when a micro-batch has come all the way back."""
        inward = self.index > 0
        if parcel.is_back:
            back = self.stage.backward(parcel.micro, parcel.tensors, inward=inward)
        elif self.index < self._count - 1:
            outputs = self.stage.forward(parcel.micro, parcel.tensors)
            return parcel._replace(to=self.index + 1, tensors=outputs)
        else:
            loss, back = self.stage.finish(parcel.micro, parcel.tensors, parcel.target, inward=inward)
            self.losses[parcel.micro] = loss
        self._finished += 1
        return Parcel(self.index - 1, parcel.micro, back, True) if inward else None


class Pace(Protocol):
    """How long things take in virtual time."""

    def __call__(self, worker: int, parcel: Parcel) -> float:
        """Seconds in which a worker does what came; a first forward and a backward that computes it again differ."""


class Span(NamedTuple):
    """A piece of work on the virtual clock."""

    worker: int
    micro: int
    is_back: bool
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Carried:
    """What a run came to.

    Attributes:
        losses: of each micro-batch, in order.
        spans: who worked on what when.
        most_under_way: micro-batches at once.
        seconds: of virtual time until all were back.
        sent_bytes: by worker.
    """

    losses: tuple[float, ...]
    spans: tuple[Span, ...]
    most_under_way: int
    seconds: float
    sent_bytes: tuple[int, ...]

    def busy(self, worker: int) -> float:
        """The share of the time in which a worker works."""
        return sum(s.end - s.start for s in self.spans if s.worker == worker) / self.seconds if self.seconds else 0.0


def workers_of(stages: Sequence[Stage], under_way: int | None = None) -> tuple[Worker, ...]:
    """A worker for each stage, in order.

    Args:
        stages: of the whole model.
        under_way: how many micro-batches at once, at most one for each stage; so many when None.

    Raises:
        BaechiError: B858 without stages, where not exactly the last has a loss, where `update_every` differs, or on a number
            of micro-batches that is none.
    """
    if not stages or [s.loss is not None for s in stages] != [False] * (len(stages) - 1) + [True]:
        raise BaechiError("B858", "a pipeline needs stages of which the last, and no other, has a loss")
    if len({stage.update_every for stage in stages}) > 1:
        raise BaechiError("B858", "the stages of a pipeline update after different numbers of micro-batches")
    if under_way is not None and not 1 <= under_way <= len(stages):
        what = f"{under_way} micro-batches under way in {len(stages)} stages"
        raise BaechiError("B858", what, help="from 1 to the number of stages")
    return tuple(Worker(i, len(stages), stage, under_way) for i, stage in enumerate(stages))


def run(
    workers: Sequence[Worker],
    batches: Sequence[Batch],
    pace: Pace | None = None,
    delay: Callable[[Parcel], float] | None = None,
    first: int = 0,
) -> Carried:
    """Carry micro-batches through a pipeline under a virtual clock until all are back.

    Args:
        workers: of each stage.
        batches: inputs and target of each micro-batch.
        pace: how long work takes; a second when None.
        delay: how long a parcel is on its way; no time when None.
        first: number of the first micro-batch.
    """
    for i, (inputs, target) in enumerate(batches):
        workers[0].accept(Parcel(0, first + i, inputs, False, target))
    events: list[tuple[float, int, Parcel, int]] = []
    free = [True] * len(workers)
    spans: list[Span] = []
    sent = [0] * len(workers)
    most, now, serial = 0, 0.0, 0

    def begin(worker: int) -> None:
        nonlocal most, serial
        parcel = workers[worker].take() if free[worker] else None
        most = max(most, workers[0].under_way)
        if parcel is None:
            return
        free[worker] = False
        end = now + (1.0 if pace is None else pace(worker, parcel))
        spans.append(Span(worker, parcel.micro, parcel.is_back, now, end))
        serial += 1
        heapq.heappush(events, (end, serial, parcel, worker))

    begin(0)
    while events:
        now, _, done, worker = heapq.heappop(events)
        if worker == _ON_ITS_WAY:
            workers[done.to].accept(done)
            begin(done.to)
            continue
        out = workers[worker].work(done)
        free[worker] = True
        if out is not None:
            sent[worker] += out.nbytes
            serial += 1
            heapq.heappush(events, (now + (0.0 if delay is None else delay(out)), serial, out, _ON_ITS_WAY))
        begin(worker)
    losses = tuple(workers[-1].losses[first + i] for i in range(len(batches)))
    return Carried(losses, tuple(spans), most, now, tuple(sent))
