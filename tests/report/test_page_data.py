"""What a page says, against arithmetic done by hand and against the timeline."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.api import place_graph, timeline_of
from baechi.cost.table import CostTable
from baechi.ir.cluster import Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.timeline import OpSpan, Timeline
from baechi.models.graphs import random_dag
from baechi.profile.measured import Measured
from baechi.profile.profiled import Profiled
from baechi.report.files import Step
from baechi.report.page.coarse import drawing
from baechi.report.page.data import page_of, page_to_dict
from baechi.report.page.spans import chart_of

CLUSTER = Cluster((Device("d:0", 40), Device("d:1", 100)), Link(0.25, 4.0))


def graph() -> Graph:
    """A parameter of 8 bytes with as much optimiser state, two products, a gradient and an update."""
    return Graph(
        (
            Op("w", "parameter", outputs=(Tensor("w", 8, (2,), held=8),), persistent_bytes=16, group="p:w", expert=0),
            Op("a", "mm", ("w",), (Tensor("a", 4),), seconds=1.0, module="net.a", expert=0),
            Op("b", "mm", ("a",), (Tensor("b", 2),), seconds=2.0, module="net.b", expert=1),
            Op("d", "mm", ("b", "a"), (Tensor("d", 8),), phase="backward", seconds=3.0, module="net.a", expert=0),
            Op("u", "update", ("d", "w"), phase="update", group="p:w", seconds=0.5, expert=0),
        ),
        "tiny",
    )


def step(placer: str = "expert", **changes: object) -> Step:
    one = graph()
    plan = place_graph(one, CLUSTER, placer)
    return replace(Step("plan.json", plan, one, timeline_of(one, plan)), **changes)


def test_a_step_in_numbers() -> None:
    (page,) = page_of([step()]).steps
    assert page.step_seconds == pytest.approx(8.5)  # 1 + (0.25 + 4/4) + 2 + (0.25 + 2/4) + 3 + 0.5
    assert (
        page.verdict[0]
        == "A step takes 8.50 s, and computing limits it: that is 76% of its critical path, the most on d:0 (53%)."
    )
    assert {s.name: s.amount for s in page.path} == pytest.approx(
        {"computing on d:0": 4.5, "computing on d:1": 2.0, "transfers": 2.0, "waiting": 0.0}
    )
    first, second = page.devices
    assert (first.ops, first.busy_seconds, first.peak_bytes, first.cap_bytes) == (4, 4.5, 30, 40)
    assert (first.sent_bytes, first.received_bytes, second.sent_bytes, second.received_bytes) == (4, 2, 2, 4)
    assert sum(s.amount for s in page.peaks[0].kinds) == sum(s.amount for s in page.peaks[0].modules) == 30
    assert [(t.source, t.nbytes) for t in page.traffic] == [("d:0", 4), ("d:1", 2)]


def test_what_would_help() -> None:
    (page,) = page_of([step()]).steps
    changes = {c.change: c for c in page.changes}
    assert changes["links 2x faster"].seconds == pytest.approx(7.5)
    assert changes["computing 2x faster on d:0"].seconds == pytest.approx(8.5 - 2.25)
    assert changes["computing 2x faster on all devices"].seconds == pytest.approx(8.5 - 3.25)
    assert changes["placed by single"].seconds == changes["without d:1"].seconds == pytest.approx(6.5)
    assert changes["placed by single"].ratio == pytest.approx(6.5 / 8.5 - 1)
    assert "Placing it with single would help: 6.50 s, 24% less." in page.verdict
    assert "No plan on these devices can have a step below" not in " ".join(page_of([step("single")]).steps[0].verdict)


def test_a_pipeline_is_limited_by_a_load() -> None:
    one = graph()
    plan = place_graph(one, CLUSTER, "expert", objective="throughput")
    (page,) = page_of([Step("pipe", plan, one, timeline_of(one, plan))]).steps
    assert "When many follow each other, each takes 6.50 s: the load of d:0." in page.verdict
    assert page.objective_seconds == pytest.approx(4.5 + (0.25 + 4 / 4) + (0.25 + 2 / 4))


def test_larger_caps_count_only_where_they_are_needed() -> None:
    (page,) = page_of([step()]).steps
    row = next(c for c in page.changes if c.kind == "memory")
    assert (row.plan, row.ratio) == ("the same plan", 0.0)  # single is better, but fits as it is
    ops = (
        Op("a", "op", outputs=(Tensor("x", 1),), seconds=1.0, persistent_bytes=20, expert=0),
        Op("b", "op", ("x",), seconds=1.0, persistent_bytes=20, expert=1),
    )
    both = Graph(ops)
    tight = Cluster((Device("d:0", 30), Device("d:1", 30)), Link(0.25, 4.0))  # one device would have to hold 41
    plan = place_graph(both, tight, "expert")
    (page,) = page_of([Step("tight", plan, both, timeline_of(both, plan))]).steps
    row = next(c for c in page.changes if c.kind == "memory")
    assert (row.plan, row.seconds, row.over_bytes) == ("single", 2.0, 0)
    assert next(c for c in page.changes if c.change == "placed by single").over_bytes == 41 - 30


def test_a_measured_step() -> None:
    one = step()
    doubled = Timeline(
        tuple(OpSpan(s.op, s.device, 2 * s.start, 2 * s.end) for s in one.timeline.ops),
        tuple(replace(s, start=2 * s.start, end=2 * s.end) for s in one.timeline.transfers),
        one.timeline.memory,
    )
    measured = Measured(17.0, (17.0,) * 9 + (99.0,), 0.0, (3.0, 2.0), {"d:0": 33, "d:1": 6})
    (page,) = page_of([replace(one, profiled=Profiled(measured, doubled, 0.02, {}))]).steps
    found = page.beside
    assert found is not None
    assert [p.ratio for p in (found.step, found.transfers, *found.kinds, *found.phases, *found.devices)] == (
        pytest.approx([2.0] * 9)
    )
    assert {p.name: (p.count, p.predicted) for p in found.kinds} == {"mm": (3, 6.0), "update": (1, 0.5)}
    assert [p.name for p in found.phases] == ["forward", "backward", "update"]
    assert found.peaks[0].ratio == pytest.approx(33 / 30)
    assert found.outliers == ((10, 99.0),)
    assert found.worst[0].time.name == "d"
    assert "Measured, it took 17.0 s, 100% more than the 8.50 s." in page.verdict


def test_a_comparison() -> None:
    assert page_of([step()]).compared == ()
    first, second = page_of([step(), step("single", name="other")]).compared
    assert (first.ratio, second.ratio) == (0.0, pytest.approx(6.5 / 8.5 - 1))
    assert (first.moved, second.moved) == (0, 1)  # b came over
    assert (first.traffic_bytes, second.traffic_bytes) == (6, 0)
    assert second.compute == pytest.approx(1.0)


def test_plain_data_is_json() -> None:
    data = page_to_dict(page_of([step(), step("single")]))
    assert data["schema"] == "baechi/report/1"
    assert json.loads(json.dumps(data, allow_nan=False))["steps"][0]["devices"][0]["peak_bytes"] == 30


@given(st.integers(0, 60), st.sampled_from(["parallel", "duplex", "sequential"]))
@settings(max_examples=20)
def test_bars_are_the_timeline_and_never_overlap(seed: int, contention: Contention) -> None:
    one = random_dag(seed, 40)
    cluster = Cluster(tuple(Device(f"d:{k}", 1 << 50) for k in range(3)), Link(1e-6, 1e9), contention=contention)
    timeline = timeline_of(one, place_graph(one, cluster, "round-robin"))
    chart = chart_of(one, cluster, timeline)
    assert sum(chart.ops.end - chart.ops.start) == pytest.approx(sum(timeline.busy_seconds.values()))
    assert len(chart.transfers) == 2 * len(timeline.transfers)
    assert chart.ops.end[chart.ops.critical].max() <= timeline.step_seconds
    for bars in (chart.ops, chart.transfers):
        for y in np.unique(bars.y):
            at = np.argsort(bars.start[bars.y == y], kind="stable")
            start, end = bars.start[bars.y == y][at], bars.end[bars.y == y][at]
            assert (start[1:] >= end[:-1]).all()
    for device, curve in chart.memory.items():
        assert curve.nbytes.max() == timeline.peak_bytes[device]


def test_ops_that_ran_at_once_share_a_row() -> None:
    one = step()
    spans = tuple(replace(s, start=0.0, end=1.0) if s.op in ("a", "d") else s for s in one.timeline.ops)
    chart = chart_of(one.graph, CLUSTER, Timeline(spans, one.timeline.transfers, one.timeline.memory))
    at = {name: (y, height) for name, y, height in zip(chart.ops.name, chart.ops.y, chart.ops.height, strict=True)}
    assert abs(at["a"][0] - at["d"][0]) >= at["a"][1] == at["d"][1]
    assert at["b"][1] == pytest.approx(2 * at["a"][1])


def test_the_drawing_flows_down() -> None:
    one = graph()
    found = drawing(one, dict.fromkeys(one.op, "d:0") | {"b": "d:1"})
    names = [box.part.name for box in found.boxes]
    assert names[:2] == ["net.a", "net.b"]
    assert all(found.boxes[a.source].layer < found.boxes[a.to].layer for a in found.arrows)
    (arrow,) = (a for a in found.arrows if {names[a.source], names[a.to]} == {"net.a", "net.b"})
    assert (arrow.nbytes, arrow.crosses) == (4 + 2, True)
    places = [(box.layer, box.place) for box in found.boxes]
    assert len(set(places)) == len(places)


def test_bounds_are_those_of_todays_op_times() -> None:
    """With ops twice as fast as when the plan was made, what was a bound then is none now."""
    graph = Graph(tuple(Op(f"op{i}", "op", flops=1e9, key="k") for i in range(3)))
    cluster = Cluster((Device("d:0", 100, type="t", flops_per_second={"float32": 1e9}),))
    plan = place_graph(graph, cluster, "single")
    assert plan.bounds.step_seconds == pytest.approx(3.0)
    table = CostTable({"t": {"k": 0.5}})
    step = Step("faster", plan, graph, timeline_of(graph, plan, table), table)
    assert step.now.bounds.step_seconds == pytest.approx(1.5)
    assert step.now.gap == pytest.approx(0.0)
    assert Step("same", plan, graph, timeline_of(graph, plan)).now is plan
