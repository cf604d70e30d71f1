"""A step as a Chrome trace, which Perfetto and chrome://tracing open.

Each device is a process: its ops are one thread, what it sends and receives are others, as many as
overlap. Arrows go from the op that makes a tensor over its transfer to the first op that reads it;
memory is a counter. Times are in microseconds.

Source: "Trace Event Format" (the Chromium project), sections "Complete Events", "Flow Events",
"Counter Events" and "Metadata Events".
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

__all__ = ["check_trace", "chrome_trace"]

_OPS, _SENDS, _RECEIVES = 0, 100, 200  # first thread of each sort
_SLACK = 1e-6  # microseconds by which rounding may let spans overlap

Event = dict[str, Any]


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
    sends = dict(zip(timeline.transfers, _lanes(timeline.transfers, lambda s: s.source), strict=True))
    receives = dict(zip(timeline.transfers, _lanes(timeline.transfers, lambda s: s.destination), strict=True))
    events = [
        *_names(process, sends, receives),
        *(_op(graph, process, span) for span in timeline.ops),
        *(_transfer(process[s.source], _SENDS + sends[s], f"to {s.destination}", s) for s in timeline.transfers),
        *(
            _transfer(process[s.destination], _RECEIVES + receives[s], f"from {s.source}", s)
            for s in timeline.transfers
        ),
        *_arrows(graph, process, timeline, sends, receives),
        *_counters(process, timeline),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"graph": graph.name}}


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 6)


def _lanes(spans: Sequence[TransferSpan], device: Any) -> list[int]:
    """The lowest free lane of each span's device, by start."""
    free: dict[str, list[int]] = {}
    busy: dict[str, list[tuple[float, int]]] = {}
    used: dict[str, int] = {}
    lanes = []
    for span in spans:
        at = device(span)
        ends, idle = busy.setdefault(at, []), free.setdefault(at, [])
        while ends and ends[0][0] <= span.start:
            heapq.heappush(idle, heapq.heappop(ends)[1])
        if idle:
            lane = heapq.heappop(idle)
        else:
            lane = used.get(at, 0)
            used[at] = lane + 1
        heapq.heappush(ends, (span.end, lane))
        lanes.append(lane)
    return lanes


def _names(
    process: dict[str, int], sends: dict[TransferSpan, int], receives: dict[TransferSpan, int]
) -> Iterator[Event]:
    """What Perfetto calls processes and threads, in the cluster's order."""
    for device, pid in process.items():
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": device}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
        yield _thread(pid, _OPS, "ops")
        for first, what, lanes in ((_SENDS, "send", sends), (_RECEIVES, "receive", receives)):
            here = (
                lane for span, lane in lanes.items() if device == (span.source if lanes is sends else span.destination)
            )
            for lane in range(max(here, default=-1) + 1):
                yield _thread(pid, first + lane, what if lane == 0 else f"{what} {lane + 1}")


def _thread(pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}


def _op(graph: Graph, process: dict[str, int], span: OpSpan) -> Event:
    op = graph.op[span.op]
    known = {"kind": op.kind, "module": op.module, "source": op.source, "group": op.group, "forward": op.forward}
    return {
        "ph": "X",
        "name": span.op,
        "cat": op.phase,
        "pid": process[span.device],
        "tid": _OPS,
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


def _arrows(
    graph: Graph,
    process: dict[str, int],
    timeline: Timeline,
    sends: dict[TransferSpan, int],
    receives: dict[TransferSpan, int],
) -> Iterator[Event]:
    """From the op that makes a tensor to its sending, and from its receiving to the first op that reads it."""
    for i, span in enumerate(timeline.transfers):
        made = timeline.span.get(graph.producer[span.tensor].name)
        reads = (timeline.span.get(op.name) for op in graph.readers[span.tensor])
        here = [s for s in reads if s is not None and s.device == span.destination]
        if made is not None:
            yield from _arrow(2 * i, process[span.source], _OPS, made.start, _SENDS + sends[span], span.start)
        if here:
            first = min(here, key=lambda s: s.start)
            yield from _arrow(
                2 * i + 1, process[span.destination], _RECEIVES + receives[span], span.start, _OPS, first.start
            )


def _arrow(number: int, pid: int, tid: int, ts: float, to: int, end: float) -> Iterator[Event]:
    shared = {"name": "tensor", "cat": "flow", "id": number, "pid": pid}
    yield {**shared, "ph": "s", "tid": tid, "ts": _micro(ts)}
    yield {**shared, "ph": "f", "bp": "e", "tid": to, "ts": _micro(end)}


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
