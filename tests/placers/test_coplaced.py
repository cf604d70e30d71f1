"""Co-placement: branches stay apart where splitting pays, sets stay small, and no schedule gets longer by much."""

from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.placers.clusters import first_members
from baechi.placers.colocated import marks_of
from baechi.placers.coplaced import co_placed


def _seconds(op: Op) -> float:
    return op.seconds or 0.0


def _send(tensor: Tensor) -> float:
    return tensor.seconds or 0.0


def _placed(graph: Graph, limit: float) -> Graph:
    """The graph with what is drawn together as groups, named after their first ops."""
    a, marks = Problem(graph, Cluster((Device("a", 1 << 40), Device("b", 1 << 40)))).arrays, marks_of(graph)
    phase = np.where(marks.forward, 0, np.where(marks.backward, 1, 2))
    parent = first_members(a.group, len(a.group_ptr) - 1)
    labels = co_placed(a, parent, marks.given, phase, limit, 0.5, 0)
    members = np.bincount(labels, minlength=len(graph))
    names = [graph.ops[label].name if members[label] > 1 else None for label in labels]
    return graph.with_ops(replace(op, group=name) for op, name in zip(graph.ops, names, strict=True))


def _sent(graph: Graph, seconds: float) -> Graph:
    """The graph with so many seconds for each transfer."""
    return graph.with_ops(
        replace(op, outputs=tuple(replace(t, seconds=seconds) for t in op.outputs)) for op in graph.ops
    )


def _node(name: str, inputs: tuple[str, ...], seconds: float, send: float, **more: Any) -> Op:
    return Op(name, "x", inputs, (Tensor(name, seconds=send),), seconds=seconds, **more)


def _fork_join(blocks: int, width: int, depth: int, seconds: float, send: float) -> Graph:
    ops = [_node("start", (), seconds, send)]
    for b in range(blocks):
        fork, ends = ops[-1].name, []
        for w in range(width):
            last = fork
            for d in range(depth):
                ops.append(_node(f"b{b}w{w}d{d}", (last,), seconds, send))
                last = ops[-1].name
            ends.append(last)
        ops.append(_node(f"join{b}", tuple(ends), seconds, send))
    return Graph(tuple(ops))


def _makespan(graph: Graph, devices: int) -> float:
    """List scheduling by distance to the end; a group stays where its first op starts earliest."""
    level: dict[str, float] = {}
    for op in (graph.ops[i] for i in reversed(graph.order)):
        rest = [_send(t) + level[r.name] for t in op.outputs for r in graph.readers[t.name]]
        level[op.name] = _seconds(op) + max(rest, default=0.0)
    waiting = {name: len(list(graph.nx.predecessors(name))) for name in graph.op}
    ready: list[tuple[float, int, str]] = []
    tie = count()
    for name, left in waiting.items():
        if not left:
            heappush(ready, (-level[name], next(tie), name))
    where: dict[str, int] = {}
    finish: dict[str, float] = {}
    free = [0.0] * devices

    def start(op: Op, p: int) -> float:
        sources = [(graph.producer[t], _send(graph.tensor[t])) for t in op.inputs]
        return max(free[p], *(finish[s.name] + (c if where[s.group or s.name] != p else 0.0) for s, c in sources), 0.0)

    while ready:
        op = graph.op[heappop(ready)[2]]
        key = op.group or op.name
        p = where.setdefault(key, min(range(devices), key=lambda p: (start(op, p), p)))
        finish[op.name] = free[p] = start(op, p) + _seconds(op)
        for reader in graph.nx.successors(op.name):
            waiting[reader] -= 1
            if not waiting[reader]:
                heappush(ready, (-level[reader], next(tie), reader))
    return max(finish.values())


def _group(graph: Graph, name: str) -> str:
    return graph.op[name].group or name


@pytest.mark.parametrize(("seconds", "send"), [(1.0, 0.01), (1.0, 0.5), (1.0, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize("limit", [1 / 32, 1.0])
def test_parallel_branches_stay_in_groups_of_their_own(seconds: float, send: float, limit: float) -> None:
    graph = _fork_join(3, 8, 5, seconds, send)
    placed = _placed(graph, limit)
    for b in range(3):
        branches = [{_group(placed, f"b{b}w{w}d{d}") for d in range(5)} for w in range(8)]
        assert all(not (x & y) for i, x in enumerate(branches) for y in branches[:i])
    assert _makespan(placed, 8) <= 1.02 * _makespan(graph, 8)


def test_the_single_consumer_rule_would_serialise_the_same_graph() -> None:
    """The original's rule, for comparison: it makes a whole block one group, 8 branches in a row."""
    graph = _fork_join(1, 8, 5, 1.0, 0.01)
    rule = nx.Graph()
    rule.add_nodes_from(op.name for op in graph.ops)
    for op in graph.ops:
        readers = {r.name for t in op.outputs for r in graph.readers[t.name]}
        if len(readers) == 1:
            rule.add_edge(op.name, *readers)
    assert max(len(part) for part in nx.connected_components(rule)) == 41
    assert _makespan(_placed(graph, 1.0), 8) == pytest.approx(7.0, rel=0.02)


def test_a_branch_that_is_dearer_to_send_than_to_split_becomes_one_group() -> None:
    placed = _placed(_fork_join(1, 8, 5, 1.0, 10.0), 1.0)
    for w in range(8):
        assert len({_group(placed, f"b0w{w}d{d}") for d in range(5)}) == 1


def test_no_group_outgrows_the_limit() -> None:
    graph = Graph(tuple(_node(f"{i}", (f"{i - 1}",) if i else (), 1.0, 100.0) for i in range(64)))
    placed = _placed(graph, 1 / 8)
    assert {len(ops) for ops in placed.groups.values()} == {8}


@pytest.mark.parametrize("blocks", [4, 12])
@pytest.mark.parametrize("send", [0.01, 1.0, 5.0, 10.0])
@pytest.mark.parametrize("devices", [2, 3, 4])
def test_coarsening_costs_at_most_two_percent_on_fork_join_graphs(blocks: int, send: float, devices: int) -> None:
    graph = _fork_join(blocks, 6, 3, 1.0, send)
    placed = _placed(graph, 1 / (8 * devices))
    assert _makespan(placed, devices) <= 1.02 * _makespan(graph, devices)


def test_a_chain_of_views_collapses_into_what_it_leads_to() -> None:
    ops = [_node("a", (), 1.0, 1.0)]
    for i in range(100):
        ops.append(_node(f"v{i}", (ops[-1].name,), 0.0, 1.0))
    ops.append(_node("b", (ops[-1].name,), 1.0, 1.0))
    placed = _placed(Graph(tuple(ops)), 0.0)
    assert len(placed.groups) == 2
    assert _group(placed, "b") == _group(placed, "v0")


def test_a_weight_and_its_view_join_the_op_that_reads_them() -> None:
    graph = Graph(
        (
            _node("x", (), 1.0, 1.0),
            _node("w", (), 0.0, 5.0),
            _node("wt", ("w",), 0.0, 5.0),
            _node("mm", ("x", "wt"), 1.0, 1.0),
        )
    )
    placed = _placed(graph, 0.0)
    assert _group(placed, "w") == _group(placed, "wt") == _group(placed, "mm") != _group(placed, "x")


def test_a_saved_view_stays_with_its_maker_not_with_its_backward_reader() -> None:
    graph = Graph(
        (
            _node("a", (), 1.0, 1.0),
            _node("saved", ("a",), 0.0, 1.0),
            _node("b", ("a",), 1.0, 1.0),
            _node("a_backward", ("b", "saved"), 1.0, 1.0, phase="backward"),
        )
    )
    placed = _placed(graph, 0.0)
    assert _group(placed, "saved") == _group(placed, "a") != _group(placed, "a_backward")


@given(st.data(), st.sampled_from([0.0, 0.5, 3.0, 50.0]), st.sampled_from([0.1, 1.0]))
def test_hard_groups_are_never_split_and_costs_are_untouched(
    training_graphs: Any, data: Any, send: float, limit: float
) -> None:
    graph = _sent(data.draw(training_graphs()), send)
    placed = _placed(graph, limit)
    assert [replace(op, group=None) for op in placed.ops] == [replace(op, group=None) for op in graph.ops]
    new = {op.name: placed.group_of(op) for op in placed.ops}
    assert len({(graph.group_of(op), new[op.name]) for op in graph.ops}) == len(
        {graph.group_of(op) for op in graph.ops}
    )


@given(st.data(), st.sampled_from([0.5, 3.0, 50.0]))
def test_groups_without_hard_groups_stay_within_the_limit(training_graphs: Any, data: Any, send: float) -> None:
    graph = _sent(data.draw(training_graphs(grouped=False)), send)
    placed = _placed(graph, 0.3)
    most = 0.3 * sum(map(_seconds, graph.ops))
    for ops in placed.groups.values():
        busy = [op for op in ops if _seconds(op)]
        assert len(busy) <= 1 or sum(map(_seconds, busy)) <= most
