"""Who holds the memory of a device when it is at its peak."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline, TransferSpan
from baechi.sim.lifetimes import Holder, Lifetime, lifetimes

__all__ = ["Peak", "peak_of"]


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest point of a device's memory curve.

    Attributes:
        device: which device.
        seconds: when it is first reached.
        nbytes: its height.
        running: the op that runs then; empty when none does.
        holders: the largest first; their bytes sum up to the height.
    """

    device: str
    seconds: float
    nbytes: int
    running: str
    holders: tuple[Holder, ...]


class _Moment(NamedTuple):
    """How far a device is: ops that have started, whether the last of them still runs, and which of
    the transfers at that instant have already begun or ended."""

    started: int
    runs: bool
    begun: int
    ended: int


def peak_of(graph: Graph, plan: Plan, timeline: Timeline, device: str) -> Peak:
    """Say what is live on a device at its peak.

    Args:
        graph: the graph of the plan.
        plan: the plan.
        timeline: what `simulate` gives for it.
        device: a device of the plan.
    """
    curve = timeline.memory[device]
    height = max(nbytes for _, nbytes in curve)
    seconds = next(at for at, nbytes in curve if nbytes == height)
    order = plan.order.get(device, ())
    persistent = [
        Holder("persistent", name, "", graph.op[name].persistent_bytes)
        for name in order
        if graph.op[name].persistent_bytes
    ]
    at = _Instant(graph, order, timeline, device, seconds)
    live: tuple[str, list[Holder]] = "", []
    left = height - sum(h.nbytes for h in persistent)
    for moment in at.moments() if left else ():
        live = at.live(moment)
        if sum(h.nbytes for h in live[1]) == left:
            break
    holders = sorted([*persistent, *live[1]], key=lambda h: -h.nbytes)
    return Peak(device, seconds, height, live[0], tuple(holders))


class _Instant:
    """One instant of one device.

    Several ops without duration may start and end at one instant, so the time alone does not say
    how far the device is. Its order of ops does, and the height of the curve tells the rest.
    """

    def __init__(self, graph: Graph, order: Sequence[str], timeline: Timeline, device: str, seconds: float) -> None:
        self._graph, self._order, self._seconds = graph, order, seconds
        self._span = timeline.span
        self._position = {name: i for i, name in enumerate(order)}
        self._storages = tuple(lifetimes(graph, order, timeline, device))
        self._beginning = [s for s in timeline.transfers if s.destination == device and s.start == seconds]
        self._ending = [s for s in timeline.transfers if s.source == device and s.end == seconds]
        self._ending.sort(key=lambda s: s.start)

    def moments(self) -> Iterator[_Moment]:
        """All that the instant can be, the likeliest first: an op has just started and waits for nothing."""
        starts = [self._span[name].start for name in self._order]
        first = next((i for i, name in enumerate(self._order) if self._span[name].end >= self._seconds), len(starts))
        last = bisect_right(starts, self._seconds)
        places = [(k, runs) for k in range(last, first - 1, -1) for runs in (True, False) if k or not runs]
        begun, ended = range(len(self._beginning), -1, -1), range(len(self._ending), -1, -1)
        for (k, runs), b, e in product(places, begun, ended):
            yield _Moment(k, runs, b, e)

    def live(self, moment: _Moment) -> tuple[str, list[Holder]]:
        """The op that runs, and what is live besides what persists."""
        done = moment.started - moment.runs
        running = self._order[done] if moment.runs else ""
        begun, ended = self._beginning[: moment.begun], self._ending[: moment.ended]
        holders = [s.holder for s in self._storages if self._is_live(s, moment.started, done, begun, ended)]
        if running and self._graph.op[running].temp_bytes:
            holders.append(Holder("temporary", running, "", self._graph.op[running].temp_bytes))
        return running, holders

    def _is_live(
        self, s: Lifetime, started: int, done: int, begun: list[TransferSpan], ended: list[TransferSpan]
    ) -> bool:
        if isinstance(s.maker, str):
            if self._position[s.maker] >= started:
                return False
        elif s.maker.start > self._seconds or (s.maker.start == self._seconds and s.maker not in begun):
            return False
        read = any(self._position[name] >= done for name in s.readers)
        sent = any(x.end > self._seconds or (x.end == self._seconds and x not in ended) for x in s.sent)
        return s.keep or read or sent
