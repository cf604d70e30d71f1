"""Who holds the memory of a device when it is at its peak."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline, TransferSpan

__all__ = ["Holder", "Peak", "peak_of"]

HolderKind = Literal["persistent", "tensor", "copy", "temporary"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Bytes that are live at a peak.

    Attributes:
        kind: what persists through all steps; a tensor where it is made; a received copy; what an
            op needs only while it runs.
        op: which op has it, or made the tensor.
        tensor: the tensor; empty for what persists and what is temporary.
        nbytes: how much.
    """

    kind: HolderKind
    op: str
    tensor: str
    nbytes: int


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


class _Storage(NamedTuple):
    """Memory that lives from an event until the last of others."""

    holder: Holder
    maker: str | TransferSpan
    readers: tuple[str, ...]
    sent: tuple[TransferSpan, ...]
    keep: bool


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
        self._storages = tuple(_storages(graph, order, timeline, device))
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
        self, s: _Storage, started: int, done: int, begun: list[TransferSpan], ended: list[TransferSpan]
    ) -> bool:
        if isinstance(s.maker, str):
            if self._position[s.maker] >= started:
                return False
        elif s.maker.start > self._seconds or (s.maker.start == self._seconds and s.maker not in begun):
            return False
        read = any(self._position[name] >= done for name in s.readers)
        sent = any(x.end > self._seconds or (x.end == self._seconds and x not in ended) for x in s.sent)
        return s.keep or read or sent


def _storages(graph: Graph, order: Sequence[str], timeline: Timeline, device: str) -> Iterator[_Storage]:
    """Everything that ever takes memory on a device, besides what persists and what is temporary."""
    here = frozenset(order)
    arrival = {s.tensor: s for s in timeline.transfers if s.destination == device}
    leaving: dict[str, list[TransferSpan]] = {}
    for span in timeline.transfers:
        if span.source == device:
            leaving.setdefault(span.tensor, []).append(span)
    root = _roots(graph, here)
    tensors: dict[str, list[str]] = {}
    for tensor, owner in root.items():
        tensors.setdefault(owner, []).append(tensor)
    for name, members in tensors.items():
        base, maker = graph.tensor[name], graph.producer[name]
        made = [t for t in members if graph.producer[t].name in here]
        readers = (op.name for t in members for op in graph.readers[t] if op.name in here)
        holding = tuple(dict.fromkeys([*(graph.producer[t].name for t in made), *readers]))
        sent = tuple(span for t in made for span in leaving.get(t, ()))
        keep = any(graph.tensor[t].keep for t in made)
        if maker.name not in here:
            yield _Storage(Holder("copy", maker.name, name, base.nbytes), arrival[name], holding, sent, keep)
        elif base.nbytes > base.held:
            size = base.nbytes - base.held
            yield _Storage(Holder("tensor", maker.name, name, size), maker.name, holding, sent, keep)


def _roots(graph: Graph, here: frozenset[str]) -> Mapping[str, str]:
    """For each tensor made or read here, the tensor whose storage it is in here: its own, that of
    what it is a view of, or that of a received copy."""
    storage: dict[str, str] = {}
    origin: dict[str, str] = {}
    for i in graph.order:
        op = graph.ops[i]
        if op.name in here:
            for name in op.inputs:
                storage.setdefault(name, name)  # made elsewhere: a copy
        for t in op.outputs:
            origin[t.name] = t.name if t.alias_of is None else origin.get(t.alias_of, t.alias_of)
            if op.name in here:
                base = next((u for u in op.inputs if origin[u] == origin[t.name]), None)
                storage[t.name] = t.name if t.alias_of is None or base is None else storage[base]
    return storage
