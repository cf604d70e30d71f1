"""Flow control: when each device may begin to receive a tensor, and when what it sends must have left.

In a real step an op takes a little more or less than predicted, so a tensor may arrive before the
memory for it is free. Here the simulated step is turned into rules that hold whatever the times
are: before each op of a device stands a list of events, each either *receive* (from now on there is
memory for this transfer) or *release* (go on when this transfer has left). A device that keeps them
never passes its predicted peak.

At first each event stands where it happened in the simulation, or after the op that ran then. All
these waits point forward in simulated time, so they cannot wait for each other in a circle. Then,
as far as the peak allows, tensors are received earlier and released later, which only weakens them.
The transfers between two devices keep one order at both ends.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan, TransferKey
from baechi.ir.timeline import Timeline, TransferSpan
from baechi.sim.lifetimes import Lifetime, lifetimes

__all__ = ["Event", "Flow", "control"]

Kind = Literal["receive", "release"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a device does about a transfer before one of its ops."""

    kind: Kind
    transfer: TransferKey


@dataclass(frozen=True, eq=False)
class Flow:
    """The flow control of one device.

    Attributes:
        events: by position in the device's order of ops, what to do before that op; the position
            after the last op stands for the end of the step.
        peak_bytes: what its memory never passes.
    """

    events: Mapping[int, tuple[Event, ...]]
    peak_bytes: int


def control(graph: Graph, plan: Plan, timeline: Timeline) -> dict[str, Flow]:
    """The flow control of each device.

    Args:
        graph: of the plan.
        plan: the plan.
        timeline: what `simulate` gives for it.
    """
    return {device: _Device(graph, plan, timeline, device).flow() for device in plan.order}


class _Device:
    """The memory of a device, by moments: ``2 p`` is before op ``p``, ``2 p + 1`` while it runs."""

    def __init__(self, graph: Graph, plan: Plan, timeline: Timeline, device: str) -> None:
        self.order = plan.order[device]
        self.size = len(self.order)
        self.position = {name: p for p, name in enumerate(self.order)}
        self.starts = [timeline.span[name].start for name in self.order]
        self.storages = tuple(lifetimes(graph, self.order, timeline, device))
        self.arriving = [s for s in timeline.transfers if s.destination == device]
        self.leaving = [s for s in timeline.transfers if s.source == device]
        first = _first_reads(graph, self.order, self.position)
        self.receive = self._receives(first)
        self.release = {s: self._release(s) for s in self.leaving}
        persistent = sum(graph.op[name].persistent_bytes for name in self.order)
        self.level = self._levels(persistent, [graph.op[name].temp_bytes for name in self.order])
        self.limit = max(timeline.peak_bytes.get(device, 0), int(self.level.max()))

    def flow(self) -> Flow:
        copies = {s.maker: s.holder.nbytes for s in self.storages if isinstance(s.maker, TransferSpan)}
        self._receive_earlier(copies, furthest=1)
        self._release_later()
        self._receive_earlier(copies, furthest=self.size)
        ordered = {p: tuple(Event(kind, _key(span)) for kind, span in found) for p, found in self._events().items()}
        return Flow(ordered, int(self.level.max()))

    def _receives(self, first: Mapping[str, int]) -> dict[TransferSpan, int]:
        """Where each transfer began to arrive, not after its first reader, nor after the next of its source."""
        found: dict[TransferSpan, int] = {}
        following: dict[str, int] = {}
        for span in reversed(self.arriving):
            latest = min(first[span.tensor], following.get(span.source, self.size))
            found[span] = following[span.source] = min(bisect_right(self.starts, span.start), latest)
        return {span: found[span] for span in self.arriving}

    def _release(self, span: TransferSpan) -> int:
        """What takes no time is not waited for: nothing says what came before it in its instant."""
        return bisect_left(self.starts, span.end) if span.end > span.start else self.size

    def _events(self) -> dict[int, list[tuple[Kind, TransferSpan]]]:
        """By position, in the order of the simulation; what ends at an instant before what begins."""
        events: dict[int, list[tuple[float, Kind, TransferSpan]]] = {}
        for span, p in self.release.items():
            events.setdefault(p, []).append((span.end, "release", span))
        for span, p in self.receive.items():
            events.setdefault(p, []).append((span.start, "receive", span))
        for found in events.values():
            found.sort(key=lambda event: (event[0], event[1] == "receive"))
        return {p: [(kind, span) for _, kind, span in found] for p, found in events.items()}

    def _levels(self, persistent: int, temporary: Sequence[int]) -> NDArray[np.int64]:
        """What is held at each moment; before an op, the most that is held between the events there."""
        level = np.full(2 * self.size + 1, persistent, np.int64)
        level[1::2] += np.array(temporary, np.int64)
        freed: dict[TransferSpan, int] = {}
        brought: dict[TransferSpan, int] = {}
        for storage in self.storages:
            begin, end = self._begin(storage), self._end(storage)
            level[begin : end + 1] += storage.holder.nbytes
            if isinstance(storage.maker, TransferSpan):
                brought[storage.maker] = storage.holder.nbytes
            if storage.sent and not storage.keep:
                last = max(storage.sent, key=lambda span: (self.release[span], span.end))
                if 2 * self.release[last] > end:
                    freed[last] = storage.holder.nbytes
        for p, found in self._events().items():
            now = int(level[2 * p]) + sum(freed.get(span, 0) for kind, span in found if kind == "release")
            level[2 * p] = now
            for kind, span in found:
                now += brought.get(span, 0) if kind == "receive" else -freed.get(span, 0)
                level[2 * p] = max(level[2 * p], now)
        return level

    def _begin(self, storage: Lifetime) -> int:
        """The first moment that is wholly with a storage."""
        if isinstance(storage.maker, str):
            return 2 * self.position[storage.maker] + 1
        return 2 * self.receive[storage.maker] + 1

    def _end(self, storage: Lifetime) -> int:
        """The last moment that is wholly with a storage."""
        if storage.keep:
            return 2 * self.size
        read = max((2 * self.position[name] + 1 for name in storage.readers), default=0)
        return max(read, *(2 * self.release[span] - 1 for span in storage.sent), self._begin(storage))

    def _receive_earlier(self, copies: Mapping[TransferSpan, int], furthest: int) -> None:
        last: dict[str, int] = {}
        for span in self.arriving:
            now, nbytes = self.receive[span], copies[span]
            least = max(now - furthest, last.get(span.source, 0))
            over = np.flatnonzero(self.level[2 * least + 1 : 2 * now + 1] + nbytes > self.limit)
            new = (2 * least + 1 + int(over[-1]) + 1) // 2 if len(over) else least
            if new < now:
                self.level[2 * new + 1 : 2 * now + 1] += nbytes
                self.receive[span] = new
            last[span.source] = self.receive[span]

    def _release_later(self) -> None:
        for storage in self.storages:
            if not storage.sent or storage.keep:
                continue
            end, nbytes = self._end(storage), storage.holder.nbytes
            over = np.flatnonzero(self.level[end + 1 :] + nbytes > self.limit)
            p = (end + int(over[0])) // 2 if len(over) else self.size
            if p > max(self.release[span] for span in storage.sent):
                self.level[end + 1 : 2 * p + 1] += nbytes
                self.release |= dict.fromkeys(storage.sent, p)
        waited = {span for storage in self.storages if not storage.keep for span in storage.sent}
        self.release |= {span: self.size for span in self.leaving if span not in waited}  # frees no memory


def _first_reads(graph: Graph, order: Iterable[str], position: Mapping[str, int]) -> dict[str, int]:
    first: dict[str, int] = {}
    for name in order:
        for tensor in graph.op[name].inputs:
            first.setdefault(tensor, position[name])
    return first


def _key(span: TransferSpan) -> TransferKey:
    return span.tensor, span.source, span.destination
