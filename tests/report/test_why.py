"""What moving an op would cost, against a plan that has it moved."""

import numpy as np
import pytest

from baechi.api import place_graph, timeline_of
from baechi.cost.problem import Problem
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.timeline import OpSpan, TransferSpan
from baechi.models.graphs import random_dag
from baechi.report.why import why, why_text
from baechi.sim.evaluate import Schedule, judge

CLUSTER = Cluster((Device("d:0", 100), Device("d:1", 20)), Link(0.25, 4.0), contention="parallel")


def chain() -> Graph:
    """Two ops that share a group with 24 bytes, one before and one after."""
    return Graph(
        (
            Op("a", "mm", outputs=(Tensor("a", 4),), seconds=1.0, expert=0),
            Op("b", "mm", ("a",), (Tensor("b", 4),), seconds=2.0, group="g", persistent_bytes=24, expert=0),
            Op("c", "mm", ("b",), (Tensor("c", 4),), seconds=3.0, group="g", expert=0),
            Op("e", "mm", ("c",), seconds=1.0, expert=1),
        )
    )


def test_a_group_elsewhere_by_hand() -> None:
    graph = chain()
    plan = place_graph(graph, CLUSTER, "expert")
    found = why(graph, plan, timeline_of(graph, plan), "c")
    assert (found.together, found.is_critical, found.span.start, found.span.end) == (2, True, 3.0, 6.0)
    assert [(w.op if isinstance(w, OpSpan) else w.tensor, w.end) for w in found.waits] == [("b", 3.0)]
    (other,) = found.elsewhere
    assert other.device == "d:1"
    assert other.objective_seconds == pytest.approx(1 + (0.25 + 1) + 5 + 1)  # only 'a' is sent
    assert other.over_bytes == 24 + 8 - 20  # what persists, b and a, or b and c
    assert found.objective_seconds == pytest.approx(6 + 1.25 + 1)
    late = why(graph, plan, timeline_of(graph, plan), "e").waits[0]
    assert isinstance(late, TransferSpan)
    assert (late.tensor, late.end) == ("c", 7.25)
    text = why_text("top", found)
    assert "d:0, with the 2 ops of group 'g'" in text
    assert "12 B over" in text


@pytest.mark.parametrize("seed", range(4))
def test_elsewhere_is_what_the_simulator_says(seed: int) -> None:
    """The turns are those in which the ops start now."""
    graph = random_dag(seed, 30, groups=True)
    cluster = Cluster(tuple(Device(f"d:{k}", 1 << 50) for k in range(3)), Link(1e-6, 1e9), contention="parallel")
    plan = place_graph(graph, cluster, "m-etf")
    timeline = timeline_of(graph, plan)
    a = Problem(graph, cluster).arrays
    names = list(cluster.device)
    for op in graph.ops[:10]:
        for other in why(graph, plan, timeline, op.name).elsewhere:
            same = {o.name for o in graph.groups[graph.group_of(op)]}
            device = [names.index(other.device if o.name in same else plan.device[o.name]) for o in graph.ops]
            order = sorted(range(len(graph)), key=lambda i: (timeline.span[graph.ops[i].name].start, a.rank[i]))
            over, ticks = judge(a, Schedule(np.array(device), np.array(order))).score
            assert (other.over_bytes, other.objective_seconds) == (over, pytest.approx(ticks / 1e12))


def test_no_such_op_says_which_are_like_it() -> None:
    graph = chain()
    plan = place_graph(graph, CLUSTER, "expert")
    with pytest.raises(BaechiError, match=r"B409.*'zz'"):
        why(graph, plan, timeline_of(graph, plan), "zz")
