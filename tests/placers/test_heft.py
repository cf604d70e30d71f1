"""HEFT, CPoP and PEFT on the examples of their papers, and what must hold of any graph."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from baechi.cost.problem import Problem
from baechi.cost.table import CostTable
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import chain, dag, random_dag
from baechi.placers import Heft, Single
from baechi.placers.heft import Rank
from baechi.placers.ranked import Order, by_rank
from baechi.placers.ranks import downward_rank, mean_transfers, optimistic_costs, upward_rank
from baechi.sim.evaluate import Schedule, evaluate

THREE = Cluster(tuple(Device(f"p{k}", 1, type=f"p{k}") for k in range(3)), contention="parallel")

# Topcuoglu, Hariri, Wu (2002), figure 2: times on three processors, and transfers between different ones.
TOPCUOGLU = [
    (14, 16, 9), (13, 19, 18), (11, 13, 19), (13, 8, 17), (12, 13, 10),
    (13, 16, 9), (7, 15, 11), (5, 11, 14), (18, 12, 20), (21, 7, 16),
]  # fmt: skip
TOPCUOGLU_EDGES = {
    (1, 2): 18, (1, 3): 12, (1, 4): 9, (1, 5): 11, (1, 6): 14, (2, 8): 19, (2, 9): 16, (3, 7): 23,
    (4, 8): 27, (4, 9): 23, (5, 9): 13, (6, 8): 15, (7, 10): 17, (8, 10): 11, (9, 10): 13,
}  # fmt: skip
# Arabnejad, Barbosa (2014), figure 1.
ARABNEJAD = [
    (22, 21, 36), (22, 18, 18), (32, 27, 43), (7, 10, 4), (29, 27, 35),
    (26, 17, 24), (14, 25, 30), (29, 23, 36), (15, 21, 8), (13, 16, 33),
]  # fmt: skip
ARABNEJAD_EDGES = {
    (1, 2): 17, (1, 3): 31, (1, 4): 29, (1, 5): 13, (1, 6): 7, (2, 8): 3, (2, 9): 30, (3, 7): 16,
    (4, 8): 11, (4, 9): 7, (5, 9): 57, (6, 8): 5, (7, 10): 9, (8, 10): 42, (9, 10): 7,
}  # fmt: skip


def drawn(times: Sequence[tuple[int, ...]], edges: Mapping[tuple[int, int], int]) -> tuple[Graph, CostTable]:
    """A graph of tasks 1, 2, … in seconds."""

    def op(i: int) -> Op:
        inputs = tuple(f"{a}.{b}" for a, b in edges if b == i)
        outputs = tuple(Tensor(f"{a}.{b}", seconds=float(c)) for (a, b), c in edges.items() if a == i)
        return Op(f"{i}", "op", inputs, outputs, key=f"{i}")

    table = {f"p{k}": {f"{i}": float(row[k]) for i, row in enumerate(times, 1)} for k in range(len(times[0]))}
    return Graph(tuple(op(i) for i in range(1, len(times) + 1))), CostTable(table)


def seconds(rank: Rank, graph: Graph, table: CostTable) -> float:
    return Heft(rank).place(graph, THREE, table=table).predicted.step_seconds


def test_the_example_of_topcuoglu() -> None:
    graph, table = drawn(TOPCUOGLU, TOPCUOGLU_EDGES)
    assert seconds("upward", graph, table) == 80
    assert seconds("cpop", graph, table) == 86


def test_the_example_of_arabnejad() -> None:
    graph, table = drawn(ARABNEJAD, ARABNEJAD_EDGES)
    assert seconds("upward", graph, table) == 133
    assert seconds("peft", graph, table) == 122


def test_the_published_ranks() -> None:
    a = Problem(*_with_table(TOPCUOGLU, TOPCUOGLU_EDGES)).arrays
    transfer = mean_transfers(a)
    upward, downward = upward_rank(a, transfer) / 1e12, downward_rank(a, transfer) / 1e12
    published = [108, 77, 80, 80, 69, 63.333, 42.667, 35.667, 44.333, 14.667]
    assert upward == pytest.approx(published, abs=1e-3)
    assert downward[:6] == pytest.approx([0, 31, 25, 22, 24, 27], abs=1e-3)


def test_the_published_optimistic_costs() -> None:
    a = Problem(*_with_table(ARABNEJAD, ARABNEJAD_EDGES)).arrays
    table = optimistic_costs(a, mean_transfers(a)) / 1e12
    assert table[0] == pytest.approx([64, 68, 86])
    assert table[-1] == pytest.approx([0, 0, 0])


def _with_table(
    times: Sequence[tuple[int, ...]], edges: Mapping[tuple[int, int], int]
) -> tuple[Graph, Cluster, CostTable]:
    graph, table = drawn(times, edges)
    return graph, THREE, table


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("follow", [True, False])
def test_what_was_planned_is_what_happens_without_contention(seed: int, follow: bool) -> None:
    """Zero-cost ops, groups and inserted ops included: no op ends later in the simulator than it was planned to."""
    graph = random_dag(seed, 80, groups=seed % 2 == 0)
    devices = tuple(Device(f"d{k}", 1 << 50, speed=1.0 + k) for k in range(3))
    a = Problem(graph, Cluster(devices, contention="parallel")).arrays
    priority = upward_rank(a, mean_transfers(a))
    order = Order(priority, np.zeros((0, 0), np.int64), np.full(len(a.rank), -1, np.int64))
    made = by_rank(a, order, np.zeros(len(a.group_ptr) - 1, np.int64), follow)
    position = np.argsort(made.taken)
    sequence = np.lexsort((position, made.end, made.start))
    place = np.argsort(sequence)
    for i in range(len(a.rank)):
        for k in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]:
            assert place[a.t_op[k]] < place[i]
    run, _ = evaluate(a, Schedule(made.device, sequence))
    assert run.done == len(a.rank)
    assert run.makespan <= made.end.max()


def test_ops_go_into_gaps() -> None:
    """On one device of two a long transfer leaves a gap; a task of low rank fills it."""
    ops = (
        Op("a", "op", (), (Tensor("x", seconds=4.0), Tensor("y", seconds=4.0)), seconds=1.0),
        Op("b", "op", ("x",), (Tensor("bx", seconds=0.0),), seconds=9.0),
        Op("c", "op", ("y",), (Tensor("cy", seconds=0.0),), seconds=8.0),
        Op("d", "op", ("bx", "cy"), seconds=1.0),
        Op("e", "op", seconds=4.0),
    )
    two = Cluster((Device("p", 1), Device("q", 1)), contention="parallel")
    plan = Heft().place(Graph(ops), two)
    assert plan.predicted.step_seconds == 14.0  # a 0-1, c 5-13 on the other, e in its gap 0-5, d 13-14
    assert plan.device["e"] == plan.device["c"] != plan.device["a"]


def test_memory_sends_an_op_elsewhere() -> None:
    """All of a chain would be on one device; half of what it persists fits there."""
    graph = chain(8, seconds=1.0, nbytes=0, transfer_seconds=0.5)
    graph = graph.with_ops(
        Op(op.name, op.kind, op.inputs, op.outputs, seconds=1.0, persistent_bytes=10) for op in graph.ops
    )
    plan = Heft().place(graph, Cluster((Device("p", 40), Device("q", 40)), contention="parallel"))
    assert plan.predicted.peak_bytes == {"p": 40, "q": 40}
    assert plan.predicted.step_seconds == 8.5


def test_many_ops_forget_old_gaps_and_stay_correct() -> None:
    """More ops on a device than gaps are remembered."""
    graph = dag("wide", 6000, 1)
    cluster = Cluster((Device("p", 1 << 50), Device("q", 1 << 50)), Link(1e-6, 1e9), contention="parallel")
    plan = Heft().place(graph, cluster)
    assert plan.predicted.step_seconds < 0.6 * Single().place(graph, cluster).predicted.step_seconds


def test_an_unknown_rank() -> None:
    with pytest.raises(BaechiError, match="no rank 'downward'") as caught:
        Heft("downward")  # type: ignore[arg-type]
    assert caught.value.code == "B505"
