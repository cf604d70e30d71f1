"""A trace shows what the timeline has, and nothing that a viewer would drop."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.api import place_graph, timeline_of
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Contention, Device, Link
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.models.graphs import random_dag
from baechi.report.trace import check_trace, chrome_trace


@given(st.integers(0, 50), st.sampled_from(["parallel", "duplex", "sequential"]))
@settings(max_examples=20)
def test_every_span_is_there_once_and_none_overlap(seed: int, contention: Contention) -> None:
    graph = random_dag(seed, 40)
    cluster = Cluster(tuple(Device(f"d:{k}", 1 << 50) for k in range(3)), Link(1e-6, 1e9), contention=contention)
    timeline = timeline_of(graph, place_graph(graph, cluster, "round-robin"))
    events = chrome_trace(graph, cluster, timeline)["traceEvents"]
    check_trace(events)
    spans = Counter(e["cat"] == "transfer" for e in events if e["ph"] == "X")
    assert spans == Counter({False: len(graph), True: 2 * len(timeline.transfers)})
    ends = {e["name"]: e["ts"] + e["dur"] for e in events if e["ph"] == "X" and e["cat"] != "transfer"}
    assert ends == pytest.approx({s.op: s.end * 1e6 for s in timeline.ops}, abs=1e-5)
    counters = [e for e in events if e["ph"] == "C"]
    for k, device in enumerate(cluster.devices):
        assert max(e["args"]["bytes"] for e in counters if e["pid"] == k) == timeline.peak_bytes[device.name]


def test_arrows_begin_and_end_inside_spans() -> None:
    graph = random_dag(3, 40)
    cluster = Cluster(tuple(Device(f"d:{k}", 1 << 50) for k in range(3)), Link(1e-6, 1e9))
    timeline = timeline_of(graph, place_graph(graph, cluster, "round-robin"))
    events = chrome_trace(graph, cluster, timeline)["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    arrows = [e for e in events if e["ph"] in "sf"]
    starts = Counter(e["id"] for e in arrows if e["ph"] == "s")
    assert starts == Counter(e["id"] for e in arrows if e["ph"] == "f")
    assert set(starts.values()) == {1}
    for e in arrows:
        here = [s for s in spans if (s["pid"], s["tid"]) == (e["pid"], e["tid"])]
        assert any(s["ts"] <= e["ts"] <= s["ts"] + s["dur"] for s in here)


def test_ops_at_once_have_threads_of_their_own() -> None:
    """A runtime may run two ops of a device at once; a viewer would not show them on one thread."""
    graph = random_dag(1, 2)
    cluster = Cluster((Device("d:0", 1),))
    names = [op.name for op in graph.ops]
    timeline = Timeline((OpSpan(names[0], "d:0", 0.0, 2.0), OpSpan(names[1], "d:0", 1.0, 3.0)))
    events = chrome_trace(graph, cluster, timeline)["traceEvents"]
    check_trace(events)
    assert [e["args"]["name"] for e in events if e["name"] == "thread_name"] == ["ops", "ops 2"]
    for e in events:
        e["tid"] = 0
    with pytest.raises(BaechiError, match=rf"B408.*'{names[0]}' and '{names[1]}'"):
        check_trace(events)


def test_times_before_the_start_are_refused() -> None:
    graph = random_dag(1, 2)
    early = Timeline((OpSpan(graph.ops[0].name, "d:0", -1.0, 2.0),))
    with pytest.raises(BaechiError, match="B408"):
        check_trace(chrome_trace(graph, Cluster((Device("d:0", 1),)), early)["traceEvents"])


def test_transfers_at_once_have_threads_of_their_own() -> None:
    graph = random_dag(1, 3)
    tensor = next(t.name for op in graph.ops for t in op.outputs)
    cluster = Cluster((Device("d:0", 1), Device("d:1", 1), Device("d:2", 1)))
    spans = [TransferSpan(tensor, "d:0", f"d:{k}", 0.0, 1.0, 8) for k in (1, 2)]
    events = chrome_trace(graph, cluster, Timeline((), tuple(spans)))["traceEvents"]
    check_trace(events)
    assert len({e["tid"] for e in events if e["ph"] == "X" and e["pid"] == 0}) == 2
