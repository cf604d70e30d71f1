"""The chain of ops and transfers that makes a step as long as it is."""

from bisect import bisect_right

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
    before, ran = _previous(timeline), dict[str, list[OpSpan]]()
    for span in timeline.ops:
        ran.setdefault(span.device, []).append(span)
    arrival = {(s.tensor, s.destination): s for s in timeline.transfers}
    spans: list[Span] = [*timeline.ops, *timeline.transfers]
    at: Span | None = max(spans, key=lambda s: s.end)
    path: list[Span] = []
    while at is not None:
        path.append(at)
        waited = [s for s in _waits(graph, timeline, arrival, at) if s.end <= at.start]
        waited += [s for s in before.get(_name(at), ()) if s.end <= at.start]
        if isinstance(at, TransferSpan) and all(s.end < at.start for s in waited):
            there = ran.get(at.destination, [])
            waited += there[: bisect_right(there, at.start, key=lambda s: s.end)][-1:]
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


def _previous(timeline: Timeline) -> dict[tuple[str, ...], list[Span]]:
    """What ran before each span on its device or on its lanes."""
    last: dict[tuple[str, str], Span] = {}
    before: dict[tuple[str, ...], list[Span]] = {}
    spans: list[Span] = [*timeline.ops, *timeline.transfers]
    for span in spans:
        if isinstance(span, OpSpan):
            lanes = shared = [("op", span.device)]
        else:
            lanes = [("send", span.source), ("receive", span.destination)]
            shared = [*lanes, ("receive", span.source), ("send", span.destination)]  # one lane when sequential
        before[_name(span)] = [last[lane] for lane in shared if lane in last]
        last.update(dict.fromkeys(lanes, span))
    return before
