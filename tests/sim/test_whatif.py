"""What-ifs against arithmetic done by hand."""

import pytest

from baechi.api import place_graph
from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.placers.whatif import best_quick, try_quick
from baechi.sim.whatif import Outcome, SamePlan

CLUSTER = Cluster((Device("d:0", 100), Device("d:1", 100)), Link(0.5, 4.0))


def chain(declared: float | None = None) -> Graph:
    """A second on one device, 4 bytes over, two seconds on the other."""
    return Graph(
        (
            Op("a", "op", outputs=(Tensor("x", 4, seconds=declared),), seconds=1.0, expert=0),
            Op("b", "op", ("x",), seconds=2.0, expert=1),
        )
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 10.0])
def test_links(factor: float) -> None:
    graph = chain()
    problem, plan = Problem(graph, CLUSTER), place_graph(graph, CLUSTER, "expert")
    faster = SamePlan(problem, plan).with_faster_links(factor)
    assert faster.objective_seconds == pytest.approx(3.0 + (0.5 + 4 / 4) / factor)
    graph = chain(declared=3.0)
    problem, plan = Problem(graph, CLUSTER), place_graph(graph, CLUSTER, "expert")
    assert SamePlan(problem, plan).with_faster_links(factor).objective_seconds == pytest.approx(3.0 + 3.0 / factor)


def test_devices() -> None:
    graph = chain()
    problem, plan = Problem(graph, CLUSTER), place_graph(graph, CLUSTER, "expert")
    assert SamePlan(problem, plan).with_faster_device("d:0", 2.0).objective_seconds == pytest.approx(4.5 - 0.5)
    assert SamePlan(problem, plan).with_faster_device("d:1", 2.0).objective_seconds == pytest.approx(4.5 - 1.0)
    assert SamePlan(problem, plan).with_faster_device(None, 2.0).objective_seconds == pytest.approx(4.5 - 1.5)


def test_quick_placers_say_what_does_not_fit() -> None:
    graph = chain()
    found = {tried.placer: tried.outcome for tried in try_quick(Problem(graph, CLUSTER))}
    assert found["single"] == Outcome(3.0, 0)
    assert found.keys() == {"single", "m-topo", "m-etf", "contiguous", "heft"}
    assert best_quick(Problem(graph, CLUSTER)).outcome == Outcome(3.0, 0)
    small = Cluster((Device("d:0", 3),))
    assert best_quick(Problem(graph, small)).outcome.over_bytes == 1
