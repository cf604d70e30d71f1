"""The views of a training step that placers look at, all judged on the step itself."""

from itertools import pairwise

import numpy as np
import pytest

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Contention, Device, Link
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import chain, dag, fork_join
from baechi.placers import Contiguous, Etf, Placer, Sct, Topo
from baechi.placers.base import best_of
from baechi.placers.variants import Placement, bound_to, variants
from baechi.sim import Schedule


def trained(graph: Graph) -> Graph:
    """The graph as the forward half of a step: each op keeps what it made for its twin, edges turned round."""
    forward = graph.ops
    backward = []
    for op in reversed(forward):
        gradients = tuple(
            f"{reader.name}.grad.{t.name}" for t in op.outputs for reader in forward if t.name in reader.inputs
        )
        outputs = tuple(Tensor(f"{op.name}.grad.{name}", graph.tensor[name].nbytes) for name in op.inputs)
        kept = tuple(t.name for t in op.outputs)
        backward.append(
            Op(
                f"{op.name}.backward",
                "backward",
                (*kept, *gradients),
                outputs,
                phase="backward",
                seconds=2 * (op.seconds or 0.0),
                forward=op.name,
            )
        )
    return Graph((*forward, *backward), graph.name)


def problem_of(graph: Graph, contention: Contention = "sequential") -> Problem:
    devices = tuple(Device(f"d{k}", 1 << 50) for k in range(4))
    return Problem(graph, Cluster(devices, Link(134e-6, 1e6 / 0.0001754), contention=contention))


def by_view(placer: Placer, problem: Problem) -> dict[str, int]:
    """Best makespan of each view, on the whole step."""
    found = {}
    for view in variants(problem):
        found[view.name] = best_of(problem, placer.lifted(view, 0)).score[1]
    return found


GRAPHS = [
    trained(fork_join(4, 8, blocks=4, seconds=1e-3, transfer_seconds=None)),
    trained(fork_join(3, 8, blocks=4, seconds=1e-4, transfer_seconds=None)),
    *(trained(dag(kind, 150, 1)) for kind in ("branchy", "layered", "wide")),
]


@pytest.mark.parametrize("placer", [Etf(), Sct(), Topo(), Contiguous()], ids=str)
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_the_best_view_is_never_worse_than_the_plain_one(placer: Placer, graph: Graph) -> None:
    problem = problem_of(graph)
    found = by_view(placer, problem)
    assert list(found) == ["plain", "co-placed", "forward"]
    plan = placer.place(graph, problem.cluster)
    assert round(plan.predicted.step_seconds * 10**12) == min(found.values()) <= found["plain"]


def test_co_placement_leaves_a_fork_join_spread() -> None:
    """The original's draws each block into one group, which makes the plan serial."""
    problem = problem_of(GRAPHS[0])
    found = by_view(Etf(), problem)
    serial = int(problem.arrays.ticks[:, 0].sum())
    assert found["co-placed"] < 0.75 * serial
    assert found["co-placed"] <= 1.02 * found["plain"]


def test_what_is_drawn_together_stays_together() -> None:
    problem = problem_of(GRAPHS[2])
    _, together, forward = variants(problem)
    groups = together.problem.arrays.group
    index = {op.name: i for i, op in enumerate(problem.graph.ops)}
    for op in problem.graph.ops:
        if op.forward:
            assert groups[index[op.name]] == groups[index[op.forward]]
    for lifted in Etf().lifted(forward, 0):
        device = lifted.device.tolist()
        assert all(device[index[op.name]] == device[index[op.forward]] for op in problem.graph.ops if op.forward)


def test_a_placement_is_scheduled_once_however_often_it_is_found() -> None:
    problem = problem_of(GRAPHS[2])
    *_, forward = variants(problem)
    device = forward.problem.arrays.rank % 3
    twice = [Placement(device), Schedule(device, forward.problem.arrays.order), Placement(device * 0)]
    assert [sorted(set(one.device)) for one in forward.lifted(twice)] == [[0, 1, 2]] * 3 + [[0]] * 3


def test_a_graph_without_twins_has_one_view() -> None:
    assert [view.name for view in variants(problem_of(chain(5)))] == ["plain"]


def test_a_given_placement_is_kept() -> None:
    problem = problem_of(dag("layered", 200, 1))
    device = problem.arrays.rank % 3
    for schedule in bound_to(problem, device):
        assert schedule.device.tolist() == device.tolist()
        assert can_run(problem, schedule)


def test_what_persists_over_a_cap_fits_in_no_order() -> None:
    ops = tuple(Op(f"p{k}", "parameter", persistent_bytes=10, seconds=1.0) for k in range(3))
    problem = Problem(Graph(ops), Cluster((Device("a", 19), Device("b", 10))))
    first, second = (bound_to(problem, np.array(device)) for device in ([0, 0, 1], [0, 1, 1]))
    assert len(first) == len(second) == 1
    problem = Problem(Graph(ops), Cluster((Device("a", 20), Device("b", 10))))
    assert len(bound_to(problem, np.array([0, 0, 1]))) == 3


def can_run(problem: Problem, schedule: Schedule) -> bool:
    """Every op comes after all that it reads."""
    place = {problem.graph.ops[i].name: at for at, i in enumerate(schedule.sequence.tolist())}
    edges = [(problem.graph.producer[t].name, op.name) for op in problem.graph.ops for t in op.inputs]
    return len(place) == len(problem.graph) and all(place[a] < place[b] for a, b in edges)


def test_a_chain_needs_no_other_view() -> None:
    """Nothing beats one device for a chain, so all views agree."""
    graph = trained(chain(20, transfer_seconds=None))
    found = by_view(Etf(), problem_of(graph))
    serial = sum(op.seconds or 0.0 for op in graph.ops)
    assert found["plain"] == round(serial * 10**12)
    assert all(one == other for one, other in pairwise(found.values()))
