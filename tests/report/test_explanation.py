"""An explanation accounts for every second and every byte."""

import pytest

from baechi.api import place_graph, timeline_of
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.report.explanation import Categories, explain, held_by_module, sentence
from baechi.report.facts import count_ops, one_device, parameter_count, traffic_of


def step() -> Graph:
    """A parameter of 8 bytes with as much optimiser state, its product, its gradient and its update."""
    return Graph(
        (
            Op("w", "parameter", outputs=(Tensor("w", 8, (2,), held=8),), persistent_bytes=16, group="p:w", expert=0),
            Op("a", "mm", ("w",), (Tensor("a", 4),), seconds=1.0, module="net.a", expert=0),
            Op("b", "mm", ("a",), (Tensor("b", 2),), seconds=2.0, module="net.b", expert=1),
            Op("d", "mm", ("b", "a"), (Tensor("d", 8),), phase="backward", seconds=3.0, module="net.a", expert=0),
            Op("u", "update", ("d", "w"), phase="update", group="p:w", seconds=0.5, expert=0),
        )
    )


CLUSTER = Cluster((Device("d:0", 100), Device("d:1", 100)), Link(0.25, 4.0))


def test_a_chain_over_two_devices() -> None:
    graph = step()
    plan = place_graph(graph, CLUSTER, "expert")
    found = explain(graph, plan, timeline_of(graph, plan))
    assert {s.name: s.amount for s in found.path.compute} == pytest.approx({"d:0": 4.5, "d:1": 2.0})
    assert found.path.transfer == pytest.approx(0.25 + 4 / 4 + 0.25 + 2 / 4)
    assert found.path.waiting == 0
    assert found.step_seconds == pytest.approx(8.5)
    assert [s.op for s in found.path.ops] == ["d", "b", "a", "u"]
    assert found.busy_seconds == pytest.approx((4.5, 2.0))
    assert [s.tensor for s in found.transfers] == ["a", "b"]
    assert "76% of its critical path is computing, 24% transfers" in sentence(plan, found)


def test_what_holds_the_peaks() -> None:
    graph = step()
    plan = place_graph(graph, CLUSTER, "expert")
    first, second = explain(graph, plan, timeline_of(graph, plan)).peaks
    assert (first.nbytes, first.running) == (30, "d")
    assert {s.name: s.amount for s in Categories(graph).sums(first)} == {
        "parameters": 8,
        "optimiser state": 8,
        "activations": 4,
        "gradients": 8,
        "received copies": 2,
    }
    assert [(s.name, s.amount) for s in held_by_module(graph, first)] == [("net.a", 28), ("net.b", 2)]
    assert {s.name: s.amount for s in Categories(graph).sums(second)} == {"received copies": 4, "activations": 2}


def test_facts_by_hand() -> None:
    graph = step()
    assert count_ops(graph) == {"ops": 5, "compute": 4, "forward": 3, "backward": 1, "update": 1}
    assert parameter_count(graph) == 2
    plan = place_graph(graph, CLUSTER, "expert")
    traffic = [(t.source, t.destination, t.transfers, t.nbytes) for t in traffic_of(timeline_of(graph, plan))]
    assert traffic == [("d:0", "d:1", 1, 4), ("d:1", "d:0", 1, 2)]


@pytest.mark.parametrize(("caps", "fits"), [((28, 29), False), ((28, 30), True)])
def test_one_device_is_judged_by_the_largest(caps: tuple[int, int], fits: bool) -> None:
    cluster = Cluster(tuple(Device(f"d:{i}", cap) for i, cap in enumerate(caps)))
    alone = one_device(step(), cluster)
    assert (alone.step_seconds, alone.peak_bytes, alone.fits) == (pytest.approx(6.5), 30, fits)
