"""A timeline as rectangles and curves in columns: what a chart library is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.op import PHASES
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.report.trace import lanes
from baechi.sim.critical import Span, critical_path
from baechi.units import format_bytes

__all__ = ["LANES", "Bars", "Chart", "Curve", "Row", "chart_of", "tone_of"]

Floats = NDArray[np.float64]
_S = TypeVar("_S", OpSpan, TransferSpan)

LANES = ("ops", "sends", "receives")
"""Rows of a device, from the top."""

_OPS, _COPIES, _SPACE = 1.0, 0.5, 0.4  # heights
_MOST_POINTS = 20_000  # of a memory curve; above, the highest of its neighbours stands for them


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the timeline.

    Attributes:
        device: whose it is.
        lane: one of `LANES`.
        y: its middle; rows go down from 0.
        height: of it.
    """

    device: str
    lane: str
    y: float
    height: float


@dataclass(frozen=True, eq=False)
class Bars:
    """Spans as rectangles, in columns.

    Args:
        name: of the op or tensor.
        kind: of the op; ``transfer``.
        where: the device; of a transfer both.
        about: the module of an op; the size of a transfer.
        source: of the op.
        start, end: in seconds.
        y, height: of each.
        tone: see `tone_of`.
        critical: whether it is on the critical path.
    """

    name: tuple[str, ...]
    kind: tuple[str, ...]
    where: tuple[str, ...]
    about: tuple[str, ...]
    source: tuple[str, ...]
    start: Floats
    end: Floats
    y: Floats
    height: Floats
    tone: NDArray[np.int8]
    critical: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, eq=False)
class Curve:
    """Memory of a device; each value holds until the next time."""

    seconds: Floats
    nbytes: Floats


@dataclass(frozen=True, eq=False)
class Chart:
    """A timeline, ready to be drawn.

    Args:
        rows: from the top.
        ops: those that take time.
        transfers: each once where it leaves and once where it arrives.
        links: of the critical path, from the end of one span to the start of the next: x and y of each.
        memory: by device.
        step_seconds: its length.
    """

    rows: tuple[Row, ...]
    ops: Bars
    transfers: Bars
    links: tuple[tuple[Floats, Floats], ...]
    memory: Mapping[str, Curve]
    step_seconds: float


def tone_of(phase: str, count: int) -> int:
    """A tone of an op: each phase has two, which take turns so that neighbours can be told apart.

    Example:
        >>> [tone_of("forward", 0), tone_of("forward", 1), tone_of("update", 4)]
        [0, 1, 4]
    """
    return 2 * PHASES.index(phase) + count % 2


def chart_of(graph: Graph, cluster: Cluster, timeline: Timeline) -> Chart:
    """Lay out a timeline.

    Args:
        graph: of the step.
        cluster: whose devices get rows, in their order.
        timeline: predicted or measured; ops that the graph does not have are left out.
    """
    rows = tuple(_rows(cluster, timeline))
    known = Timeline(tuple(s for s in timeline.ops if s.op in graph.op), timeline.transfers, timeline.memory)
    path = critical_path(graph, known) if _is_whole(graph, known) else ()
    critical = {_key(span) for span in path}
    at = {(row.device, row.lane): row for row in rows}
    ops, transfers = _ops(graph, known, at, critical), _transfers(timeline, at, critical)
    curves = {name: _curve(points, timeline.step_seconds) for name, points in timeline.memory.items() if points}
    return Chart(rows, ops, transfers, _links(path, at), curves, timeline.step_seconds)


def _is_whole(graph: Graph, timeline: Timeline) -> bool:
    """Whether all that can be waited for is there: a profiler may leave out what takes no time."""
    return len(timeline.span) == len(graph) and all(s.tensor in graph.tensor for s in timeline.transfers)


def _rows(cluster: Cluster, timeline: Timeline) -> list[Row]:
    rows, y = [], 0.0
    sending, receiving = {s.source for s in timeline.transfers}, {s.destination for s in timeline.transfers}
    for device in cluster.device:
        there = (True, device in sending, device in receiving)
        for lane, height, shown in zip(LANES, (_OPS, _COPIES, _COPIES), there, strict=True):
            if shown:
                rows.append(Row(device, lane, y - height / 2, height))
                y -= height
        y -= _SPACE
    return rows


def _key(span: Span) -> object:
    return getattr(span, "op", None) or (getattr(span, "tensor", ""), getattr(span, "destination", ""))


def _ops(graph: Graph, timeline: Timeline, at: Mapping[tuple[str, str], Row], critical: set[object]) -> Bars:
    spans = [s for s in timeline.ops if s.end > s.start]
    ops = [graph.op[s.op] for s in spans]
    rows = [at[s.device, "ops"] for s in spans]
    y, height = _parts(spans, rows)
    return Bars(
        tuple(s.op for s in spans),
        tuple(op.kind for op in ops),
        tuple(s.device for s in spans),
        tuple(op.module for op in ops),
        tuple(op.source for op in ops),
        np.array([s.start for s in spans]),
        np.array([s.end for s in spans]),
        y,
        height,
        np.array(_tones(rows, [op.phase for op in ops]), np.int8),
        np.array([s.op in critical for s in spans], np.bool_),
    )


def _parts(spans: Sequence[_S], rows: Sequence[Row]) -> tuple[Floats, Floats]:
    """Middle and height of each span's bar: where several of a row overlap, they share its height."""
    lane = lanes(spans, [row.device for row in rows], 0)
    number = np.array([lane[span] for span in spans], np.int64)
    most: dict[str, int] = {}
    for row, k in zip(rows, number.tolist(), strict=True):
        most[row.device] = max(most.get(row.device, 0), k + 1)
    part = np.array([row.height / most[row.device] for row in rows])
    top = np.array([row.y + row.height / 2 for row in rows])
    return top - (number + 0.5) * part, 0.86 * part


def _tones(rows: Sequence[Row], phases: Sequence[str]) -> list[int]:
    seen: dict[str, int] = {}
    tones = []
    for row, phase in zip(rows, phases, strict=True):
        seen[row.device] = count = seen.get(row.device, -1) + 1
        tones.append(tone_of(phase, count))
    return tones


def _transfers(timeline: Timeline, at: Mapping[tuple[str, str], Row], critical: set[object]) -> Bars:
    """Each once where it leaves and once where it arrives."""
    sends = _parts(timeline.transfers, [at[s.source, "sends"] for s in timeline.transfers])
    receives = _parts(timeline.transfers, [at[s.destination, "receives"] for s in timeline.transfers])
    spans = (*timeline.transfers, *timeline.transfers)
    return Bars(
        tuple(s.tensor for s in spans),
        ("transfer",) * len(spans),
        tuple(f"{s.source} to {s.destination}" for s in spans),
        tuple(format_bytes(s.nbytes) for s in spans),
        ("",) * len(spans),
        np.array([s.start for s in spans]),
        np.array([s.end for s in spans]),
        np.concatenate([sends[0], receives[0]]),
        np.concatenate([sends[1], receives[1]]),
        np.zeros(len(spans), np.int8),
        np.array([_key(s) in critical for s in spans], np.bool_),
    )


def _links(path: Sequence[Span], at: Mapping[tuple[str, str], Row]) -> tuple[tuple[Floats, Floats], ...]:
    """Steps between spans of the critical path that are on different devices, or with time in between."""
    found = []
    shown = [span for span in path if span.end > span.start]
    for one, other in pairwise(shown):
        begin, end = _middle(one, at, "destination", "receives"), _middle(other, at, "source", "sends")
        if begin != end:
            found.append((np.array([one.end, other.start]), np.array([begin, end])))
    return tuple(found)


def _middle(span: Span, at: Mapping[tuple[str, str], Row], end: str, lane: str) -> float:
    device = getattr(span, "device", None)
    return at[device, "ops"].y if device is not None else at[getattr(span, end), lane].y


def _curve(points: Sequence[tuple[float, int]], until: float) -> Curve:
    seconds, nbytes = np.array([p[0] for p in points]), np.array([p[1] for p in points], np.float64)
    many = -(-len(points) // _MOST_POINTS)
    if many > 1:
        firsts = np.arange(0, len(points), many)
        seconds, nbytes = seconds[firsts], np.maximum.reduceat(nbytes, firsts)
    return Curve(np.append(seconds, max(until, seconds[-1])), np.append(nbytes, nbytes[-1]))
