"""A step as a Chrome trace, which Perfetto and chrome://tracing open.

Each device is a process: its ops are one thread (more where a runtime ran several at once), what it
sends and receives are others, as many as overlap. Arrows go from the op that makes a tensor over its transfer to the first op that reads it;
memory is a counter. Times are in microseconds.

Source: "Trace Event Format" (the Chromium project), sections "Complete Events", "Flow Events",
"Counter Events" and "Metadata Events".
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

__all__ = ["check_trace", "chrome_trace", "lanes"]

_OPS, _SENDS, _RECEIVES = 0, 10_000, 20_000  # first thread of each sort
_SORTS = {_OPS: "ops", _SENDS: "send", _RECEIVES: "receive"}
_SLACK = 1e-6  # microseconds by which rounding may let spans overlap

Event = dict[str, Any]
S = TypeVar("S", OpSpan, TransferSpan)


def chrome_trace(graph: Graph, cluster: Cluster, timeline: Timeline) -> dict[str, Any]:
    """The trace as a JSON object.

    Args:
        graph: of the step.
        cluster: its devices; each is a process, in their order.
        timeline: predicted or measured.

    Example:
        >>> from baechi.ir.cluster import Device
        >>> from baechi.ir.op import Op
        >>> step = Timeline((OpSpan("a", "cpu:0", 0.0, 2e-6),))
        >>> trace = chrome_trace(Graph((Op("a", "relu"),)), Cluster((Device("cpu:0", 1),)), step)
        >>> [(e["name"], e["ts"], e["dur"]) for e in trace["traceEvents"] if e["ph"] == "X"]
        [('a', 0.0, 2.0)]
    """
    process = {device.name: k for k, device in enumerate(cluster.devices)}
    threads = _Threads(
        lanes(timeline.ops, [s.device for s in timeline.ops], _OPS),
        lanes(timeline.transfers, [s.source for s in timeline.transfers], _SENDS),
        lanes(timeline.transfers, [s.destination for s in timeline.transfers], _RECEIVES),
    )
    events = [
        *_names(process, timeline, threads),
        *(_op(graph, process[span.device], threads.ops[span], span) for span in timeline.ops),
        *(_transfer(process[s.source], threads.sends[s], f"to {s.destination}", s) for s in timeline.transfers),
        *(_transfer(process[s.destination], threads.receives[s], f"from {s.source}", s) for s in timeline.transfers),
        *_arrows(graph, process, timeline, threads),
        *_counters(process, timeline),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"graph": graph.name}}


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 6)


class _Threads(NamedTuple):
    """The thread of each op, of each transfer where it is sent, and where it is received."""

    ops: dict[OpSpan, int]
    sends: dict[TransferSpan, int]
    receives: dict[TransferSpan, int]


def lanes(spans: Sequence[S], devices: Sequence[str], first: int) -> dict[S, int]:
    """By span, the lowest thread from `first` on that is free on its device; spans come by their start."""
    free: dict[str, list[int]] = {}
    busy: dict[str, list[tuple[float, int]]] = {}
    used: dict[str, int] = {}
    found = {}
    for span, device in zip(spans, devices, strict=True):
        ends, idle = busy.setdefault(device, []), free.setdefault(device, [])
        while ends and ends[0][0] <= span.start:
            heapq.heappush(idle, heapq.heappop(ends)[1])
        if idle:
            lane = heapq.heappop(idle)
        else:
            lane = used.get(device, first)
            used[device] = lane + 1
        heapq.heappush(ends, (span.end, lane))
        found[span] = lane
    return found


def _names(process: dict[str, int], timeline: Timeline, threads: _Threads) -> Iterator[Event]:
    """What Perfetto calls processes and threads, in the cluster's order."""
    used: dict[str, set[int]] = {device: {_OPS} for device in process}
    for op in timeline.ops:
        used[op.device].add(threads.ops[op])
    for transfer in timeline.transfers:
        used[transfer.source].add(threads.sends[transfer])
        used[transfer.destination].add(threads.receives[transfer])
    for device, pid in process.items():
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": device}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
        for tid in sorted(used[device]):
            yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": _thread(tid)}}


def _thread(tid: int) -> str:
    first, what = max((first, what) for first, what in _SORTS.items() if first <= tid)
    return what if tid == first else f"{what} {tid - first + 1}"


def _op(graph: Graph, pid: int, tid: int, span: OpSpan) -> Event:
    op = graph.op[span.op]
    known = {"kind": op.kind, "module": op.module, "source": op.source, "group": op.group, "forward": op.forward}
    return {
        "ph": "X",
        "name": span.op,
        "cat": op.phase,
        "pid": pid,
        "tid": tid,
        "ts": _micro(span.start),
        "dur": _micro(span.end - span.start),
        "args": {key: value for key, value in known.items() if value},
    }


def _transfer(pid: int, tid: int, where: str, span: TransferSpan) -> Event:
    return {
        "ph": "X",
        "name": span.tensor,
        "cat": "transfer",
        "pid": pid,
        "tid": tid,
        "ts": _micro(span.start),
        "dur": _micro(span.end - span.start),
        "args": {"nbytes": span.nbytes, "direction": where},
    }


def _arrows(graph: Graph, process: dict[str, int], timeline: Timeline, threads: _Threads) -> Iterator[Event]:
    """From the op that makes a tensor to its sending, and from its receiving to the first op that reads it."""
    for i, span in enumerate(timeline.transfers):
        made = timeline.span.get(graph.producer[span.tensor].name)
        reads = (timeline.span.get(op.name) for op in graph.readers[span.tensor])
        here = [s for s in reads if s is not None and s.device == span.destination]
        if made is not None:
            ends = (threads.ops[made], made.start), (threads.sends[span], span.start)
            yield from _arrow(2 * i, process[span.source], *ends)
        if here:
            first = min(here, key=lambda s: s.start)
            ends = (threads.receives[span], span.start), (threads.ops[first], first.start)
            yield from _arrow(2 * i + 1, process[span.destination], *ends)


def _arrow(number: int, pid: int, begin: tuple[int, float], end: tuple[int, float]) -> Iterator[Event]:
    shared = {"name": "tensor", "cat": "flow", "id": number, "pid": pid}
    yield {**shared, "ph": "s", "tid": begin[0], "ts": _micro(begin[1])}
    yield {**shared, "ph": "f", "bp": "e", "tid": end[0], "ts": _micro(end[1])}


def _counters(process: dict[str, int], timeline: Timeline) -> Iterator[Event]:
    for device, curve in timeline.memory.items():
        for seconds, nbytes in curve:
            yield {
                "ph": "C",
                "name": "memory",
                "pid": process[device],
                "tid": 0,
                "ts": _micro(seconds),
                "args": {"bytes": nbytes},
            }


def check_trace(events: Iterable[Event]) -> None:
    """Refuse events that a viewer would not show as they are: a time before the start, two spans of a thread that overlap.

    Raises:
        BaechiError: B408, which names them.
    """
    threads: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        if event["ph"] != "M" and not event["ts"] >= 0:
            raise BaechiError(
                "B408", f"'{event['name']}' of the trace is at {event['ts']} us", help="profile the step again"
            )
        if event["ph"] == "X":
            threads.setdefault((event["pid"], event["tid"]), []).append(event)
    for spans in threads.values():
        spans.sort(key=lambda e: (e["ts"], e["ts"] + e["dur"]))
        for one, other in itertools.pairwise(spans):
            if one["ts"] + one["dur"] > other["ts"] + _SLACK:
                raise BaechiError(
                    "B408",
                    f"'{one['name']}' and '{other['name']}' of the trace overlap on one thread",
                    help="an op and the next on its device cannot run at once: profile the step again",
                )
