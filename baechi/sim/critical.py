"""The chain of ops and transfers that makes a step as long as it is."""

from bisect import bisect_left, bisect_right

from baechi.ir.graph import Graph
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

__all__ = ["Span", "critical_path", "waits_of"]

Span = OpSpan | TransferSpan


def critical_path(graph: Graph, timeline: Timeline) -> tuple[Span, ...]:
    """Walk back from the end of the step, each time to what was waited for last.

    An op waits for its inputs, their transfers, its control dependencies and the op before it on
    its device; a transfer for its tensor and for the transfer before it on either device, and when it begins
    later, as in a measured step, for room: until the op before it on the receiving device had ended.

    Returns:
        Spans from the first to the last; gaps between them are time in which nothing that the
        next one waits for was running.
    """
    if not timeline.ops:
        return ()
    lanes = _Lanes(timeline)
    arrival = {(s.tensor, s.destination): s for s in timeline.transfers}
    spans: list[Span] = [*timeline.ops, *timeline.transfers]
    at: Span | None = max(spans, key=lambda s: s.end)
    path: list[Span] = []
    while at is not None:
        path.append(at)
        waited = [s for s in _waits(graph, timeline, arrival, at) if s.end <= at.start]
        waited += [s for s in lanes.before(at) if s.end <= at.start]
        if isinstance(at, TransferSpan) and all(s.end < at.start for s in waited):
            waited += lanes.ended(at.destination, at.start)
        at = max(waited, key=lambda s: s.end, default=None)
    return tuple(reversed(path))


def waits_of(graph: Graph, timeline: Timeline, op: str) -> tuple[Span, ...]:
    """What an op waits for: what makes or brings its inputs, control dependencies, the op before it on its device.

    Returns:
        Spans, the one that ends last first.
    """
    at = timeline.span[op]
    arrival = {(s.tensor, s.destination): s for s in timeline.transfers}
    here = [s for s in timeline.ops if s.device == at.device and s.op != op and s.end <= at.start]
    before = [max(here, key=lambda s: s.end)] if here else []
    return tuple(sorted({*_waits(graph, timeline, arrival, at), *before}, key=lambda s: (-s.end, _name(s))))


def _name(span: Span) -> tuple[str, ...]:
    return (span.op,) if isinstance(span, OpSpan) else (span.tensor, span.destination)


def _waits(graph: Graph, timeline: Timeline, arrival: dict[tuple[str, str], TransferSpan], at: Span) -> list[Span]:
    if isinstance(at, TransferSpan):
        return [timeline.span[graph.producer[at.tensor].name]]
    op = graph.op[at.op]
    inputs = [arrival.get((name, at.device)) or timeline.span[graph.producer[name].name] for name in op.inputs]
    return [*inputs, *(timeline.span[name] for name in op.after)]


class _Lanes:
    """What ran one after the other: the ops of a device, and its transfers in either direction."""

    def __init__(self, timeline: Timeline) -> None:
        self._ops, self._transfers = timeline.ops, timeline.transfers
        self._number: dict[tuple[str, ...], int] = {}
        self._ran: dict[str, list[int]] = {}
        self._sent: dict[str, list[int]] = {}
        self._received: dict[str, list[int]] = {}
        for k, span in enumerate(timeline.ops):
            self._number[_name(span)] = k
            self._ran.setdefault(span.device, []).append(k)
        for k, sent in enumerate(timeline.transfers):
            self._number[_name(sent)] = k
            self._sent.setdefault(sent.source, []).append(k)
            self._received.setdefault(sent.destination, []).append(k)

    def before(self, span: Span) -> list[Span]:
        """The last span before it on its device, or on each of the lanes that a transfer may have to share."""
        number = self._number[_name(span)]
        if isinstance(span, OpSpan):
            return [self._ops[k] for k in _last(self._ran[span.device], number)]
        one, other = span.source, span.destination
        lanes = self._sent.get(one), self._received.get(other), self._received.get(one), self._sent.get(other)
        return [self._transfers[k] for lane in lanes for k in _last(lane or [], number)]

    def ended(self, device: str, seconds: float) -> list[OpSpan]:
        """The last op of a device that had ended by then."""
        ran = self._ran.get(device, [])
        at = bisect_right(ran, seconds, key=lambda k: self._ops[k].end)
        return [self._ops[k] for k in ran[max(at - 1, 0) : at]]


def _last(lane: list[int], number: int) -> list[int]:
    """The number in a lane that comes before this one, if there is one."""
    at = bisect_left(lane, number)
    return lane[max(at - 1, 0) : at]
