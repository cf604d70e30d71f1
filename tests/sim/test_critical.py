"""The critical path: a chain of spans, each waiting for the one before it."""

from itertools import pairwise
from types import ModuleType

import pytest

from baechi.cost import Problem
from baechi.ir.cluster import CONTENTIONS, Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.models.graphs import chain, fork_join, random_dag
from baechi.placers import Single
from baechi.sim import critical_path, simulate


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("contention", CONTENTIONS)
def test_it_reaches_from_start_to_end_without_a_gap(reference: ModuleType, seed: int, contention: Contention) -> None:
    """Every op and transfer starts when the last thing that it waits for ends, so nothing can be missing."""
    graph = random_dag(seed, 30, shuffled=seed % 2 == 0, zero_cost=0.5)
    cluster = Cluster(tuple(Device(f"d{k}", 1 << 40) for k in range(3)), Link(1e-6, 1e9), contention=contention)
    timeline = simulate(Problem(graph, cluster), reference.random_plan(graph, cluster, seed))
    path = critical_path(graph, timeline)
    assert path[0].start == 0.0
    assert path[-1].end == timeline.step_seconds
    assert all(first.end == second.start for first, second in pairwise(path))


def test_of_a_chain_it_is_the_chain() -> None:
    graph = chain(5)
    timeline = simulate(Problem(graph, one := Cluster((Device("d", 1 << 20),))), Single().place(graph, one))
    assert [s.op for s in critical_path(graph, timeline) if isinstance(s, OpSpan)] == [op.name for op in graph.ops]


def test_on_one_device_it_is_every_op(reference: ModuleType) -> None:
    graph = fork_join(3, 2)
    timeline = simulate(Problem(graph, one := Cluster((Device("d", 1 << 20),))), Single().place(graph, one))
    assert len(critical_path(graph, timeline)) == len(graph)


def test_a_measured_transfer_may_wait_for_room() -> None:
    """It was made at 1, and sent when the op at its destination had ended, at 5."""
    graph = Graph((Op("a", "op", (), (Tensor("x", 8),)), Op("b", "op"), Op("c", "op", ("x",))))
    ops = (OpSpan("a", "d0", 0.0, 1.0), OpSpan("b", "d1", 0.0, 5.0), OpSpan("c", "d1", 5.75, 7.0))
    sent = TransferSpan("x", "d0", "d1", 5.25, 5.75, 8)
    assert critical_path(graph, Timeline(ops, (sent,))) == (ops[1], sent, ops[2])
    at_once = TransferSpan("x", "d0", "d1", 1.0, 5.75, 8)
    assert critical_path(graph, Timeline(ops, (at_once,))) == (ops[0], at_once, ops[2])
