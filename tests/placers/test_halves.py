"""The forward half of a step: who follows whom, who pays for what, and what is kept."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.placers.colocated import marks_of
from baechi.placers.halves import Half, forward_half, hosts_of
from baechi.placers.variants import variants, views_and_owners


def _problem(graph: Graph) -> Problem:
    return Problem(graph, Cluster((Device("d", 1 << 40),)))


def _hosts(graph: Graph) -> dict[str, str]:
    marks = marks_of(graph)
    host = hosts_of(_problem(graph).arrays, marks.forward, marks.twin).tolist()
    return {op.name: graph.ops[h].name for op, h in zip(graph.ops, host, strict=True)}


def _half(graph: Graph) -> Half:
    problem = _problem(graph)
    half = forward_half(problem.arrays, marks_of(graph), *views_and_owners(problem))
    assert half is not None
    return half


@given(st.data())
def test_every_op_gets_a_device_and_no_group_is_split(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    host = _hosts(graph)
    assert all(graph.op[name].phase == "forward" and host[name] == name for name in host.values())
    home = {name: graph.group_of(graph.op[name]) for name in host.values()}  # a group is placed as one
    for ops in graph.groups.values():
        assert len({home[host[op.name]] for op in ops}) == 1


@given(st.data())
def test_ungrouped_backward_ops_sit_with_their_twins(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs(grouped=False))
    host = _hosts(graph)
    for op in graph.ops:
        if op.forward is not None and host[op.forward] == op.forward:
            assert host[op.name] == op.forward


@given(st.data())
def test_charging_conserves_every_sum(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    half, a = _half(graph), _problem(graph).arrays
    assert half.arrays.ticks.sum() == a.ticks.sum()
    assert half.arrays.persistent.sum() == a.persistent.sum()


@given(st.data())
def test_the_half_is_the_graph_of_its_ops(training_graphs: Any, data: Any) -> None:
    """Reads, sizes and groups are those of a graph with the other ops left out."""
    graph = data.draw(training_graphs())
    half = _half(graph)
    ops = [graph.ops[i] for i in half.op.tolist()]
    made = {t.name for op in ops for t in op.outputs}
    later = [name for op in graph.ops if op not in ops for name in op.inputs]
    kept = {*later, *(_owner(graph, name) for name in later)}
    a = half.arrays
    tensors = [t for op in ops for t in op.outputs]
    real = np.flatnonzero(a.t_ticks != -2)
    assert len(real) == len(tensors)
    assert a.t_keep[real].tolist() == [t.keep or t.name in kept for t in tensors]
    reads = [
        [tensors[real.tolist().index(t)].name for t in a.in_t[x:y].tolist() if t in real] for x, y in _rows(a.in_ptr)
    ]
    assert [sorted(names) for names in reads] == [sorted(name for name in op.inputs if name in made) for op in ops]


def _owner(graph: Graph, name: str) -> str:
    tensor = graph.tensor[name]
    return name if tensor.alias_of is None else _owner(graph, tensor.alias_of)


def _rows(ptr: Any) -> list[tuple[int, int]]:
    return list(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True))


def _step() -> Graph:
    return Graph(
        (
            Op("w", "parameter", outputs=(Tensor("w", 8, held=8),), persistent_bytes=8, group="w"),
            Op("x", "input", outputs=(Tensor("x", 2),)),
            Op("mm", "mm", ("x", "w"), (Tensor("y", 4),), seconds=1.0, temp_bytes=1),
            Op("view", "view", ("y",), (Tensor("v", 4, alias_of="y"),), seconds=0.0),
            Op("one", "tangent", outputs=(Tensor("one", 1),), phase="backward"),
            Op("mm_1", "mm", ("one", "v"), (Tensor("g", 8),), (), "backward", seconds=2.0, forward="mm", temp_bytes=3),
            Op("sum", "add", ("g", "v"), (Tensor("s", 8),), phase="backward", seconds=0.5),
            Op("step", "update", ("s", "w"), phase="update", seconds=0.25, group="w"),
        )
    )


def test_who_follows_whom_by_hand() -> None:
    # one: no input, read by mm_1; mm_1: twin; sum: its largest input is g, made by mm_1; step: its group
    assert _hosts(_step()) == {
        "w": "w", "x": "x", "mm": "mm", "view": "view", "one": "mm", "mm_1": "mm", "sum": "mm", "step": "w",
    }  # fmt: skip


def test_an_op_that_is_named_like_a_group_is_no_member_of_it() -> None:
    """The backward op in the group called `y` has a twin; the forward op called `y` is none of its members."""
    ops = (
        Op("x", "mm", outputs=(Tensor("x", 2),)),
        Op("y", "mm", ("x",), (Tensor("y", 4),)),
        Op("x_1", "mm", ("y",), (Tensor("g", 8),), phase="backward", forward="x", group="y"),
    )
    assert _hosts(Graph(ops)) == {"x": "x", "y": "y", "x_1": "x"}


def test_charges_by_hand() -> None:
    """The matmul pays for its twin, the sum, the tangent and the weight's update."""
    graph = _step()
    half = _half(graph)
    at = {graph.ops[i].name: k for k, i in enumerate(half.op.tolist())}
    a = half.arrays
    seconds = a.ticks[:, 0] / 1e12
    assert [seconds[at[name]] for name in ("mm", "w", "view")] == [3.75, 0.0, 0.0]
    assert a.temp[at["mm"]] == 11  # the backward matmul: 3 while it runs and the 8 that it makes
    kept = {graph.ops[i].name: bool(a.t_keep[a.out_ptr[k]]) for k, i in enumerate(half.op.tolist())}
    assert (kept["mm"], kept["view"], kept["x"]) == (True, True, False)  # backward reads a view of what mm made


def test_a_forward_op_that_waits_for_backward_follows_it() -> None:
    graph = _step()
    late = Op("late", "mm", ("g",), (Tensor("z", 1),))
    assert _hosts(graph.with_ops((*graph.ops, late)))["late"] == "mm"


def test_without_a_forward_op_there_is_no_half() -> None:
    graph = Graph((Op("a", "mm", phase="backward", forward="a"),))
    problem = _problem(graph)
    assert forward_half(problem.arrays, marks_of(graph), *views_and_owners(problem)) is None
    assert [view.name for view in variants(problem)] == ["plain", "co-placed"]
