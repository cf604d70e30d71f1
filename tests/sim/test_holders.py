"""Who holds the memory at a peak: the sum is the simulator's own, and a small case by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.api import place_graph, timeline_of
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.sim.holders import peak_of

CONTENTIONS = ("sequential", "duplex", "parallel")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Small graphs with views, zero-cost ops, kept results, temporaries and partly held outputs."""
    ops: list[Op] = []
    known: list[str] = []
    for i in range(draw(st.integers(1, 12))):
        inputs = tuple(draw(st.lists(st.sampled_from(known), max_size=3, unique=True))) if known else ()
        outputs = []
        for k in range(draw(st.integers(0, 2))):
            alias = draw(st.sampled_from(inputs)) if inputs and draw(st.booleans()) else None
            nbytes = draw(st.integers(0, 4))
            held = draw(st.integers(0, nbytes))
            keep, scattered = draw(st.booleans()), draw(st.booleans())
            outputs.append(Tensor(f"t{i}.{k}", nbytes, alias_of=alias, held=held, keep=keep, scattered=scattered))
        ops.append(
            Op(
                f"o{i}",
                "op",
                inputs,
                tuple(outputs),
                after=(f"o{i - 1}",) if i and draw(st.integers(0, 5)) == 0 else (),
                temp_bytes=draw(st.integers(0, 3)),
                persistent_bytes=draw(st.integers(0, 3)),
                seconds=float(draw(st.integers(0, 2))),
            )
        )
        known += [t.name for t in outputs]
    return Graph(tuple(ops))


@settings(max_examples=150)
@given(graphs(), st.sampled_from(CONTENTIONS), st.sampled_from([0.0, 1.0]), st.sampled_from(["round-robin", "m-etf"]))
def test_holders_sum_up_to_the_peak(graph: Graph, contention: str, rate: float, placer: str) -> None:
    link = Link(0.0, 1.0) if rate else Link()
    cluster = Cluster(tuple(Device(f"d:{i}", 10**6) for i in range(3)), link, contention=contention)  # type: ignore[arg-type]
    plan = place_graph(graph, cluster, placer)
    timeline = timeline_of(graph, plan)
    for device in cluster.device:
        peak = peak_of(graph, plan, timeline, device)
        assert peak.nbytes == plan.predicted.peak_bytes[device]
        assert sum(h.nbytes for h in peak.holders) == peak.nbytes


def test_what_is_live_in_a_chain() -> None:
    graph = Graph(
        (
            Op("w", "parameter", outputs=(Tensor("w", 10, held=10),), persistent_bytes=10, seconds=0.0),
            Op("a", "mm", ("w",), (Tensor("x", 5),), seconds=1.0),
            Op("b", "relu", ("x",), (Tensor("y", 4),), temp_bytes=7, seconds=1.0),
            Op("c", "sum", ("y",), (Tensor("z", 1, keep=True),), seconds=1.0),
        )
    )
    plan = place_graph(graph, Cluster((Device("d", 100),)), "single")
    peak = peak_of(graph, plan, timeline_of(graph, plan), "d")
    assert (peak.seconds, peak.nbytes, peak.running) == (pytest.approx(1.0), 26, "b")
    assert [(h.kind, h.op, h.tensor, h.nbytes) for h in peak.holders] == [
        ("persistent", "w", "", 10),
        ("temporary", "b", "", 7),
        ("tensor", "a", "x", 5),
        ("tensor", "b", "y", 4),
    ]
