from collections.abc import Mapping
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import Coarse, fuse

DELAYS = st.sampled_from([0.0, 1.0, inf])


def _group(op: Op) -> str:
    return op.group or op.name


@given(st.data(), DELAYS)
def test_sums_are_conserved_and_members_partition_the_graph(training_graphs: Any, data: Any, delay: float) -> None:
    drawn = data.draw(training_graphs())
    graph = drawn.with_ops(replace(op, host_seconds=float(i % 4)) for i, op in enumerate(drawn.ops))
    coarse = fuse(graph, delay_seconds=delay)
    for cost in ("seconds", "host_seconds", "flops", "moved_bytes", "persistent_bytes"):
        assert sum(getattr(o, cost) for o in coarse.graph.ops) == sum(getattr(o, cost) for o in graph.ops)
    assert sorted(m for members in coarse.members.values() for m in members) == sorted(o.name for o in graph.ops)
    assert set(coarse.members) == {op.name for op in coarse.graph.ops}
    for name, members in coarse.members.items():
        for member in members:
            assert graph.op[member].phase == coarse.graph.op[name].phase
            assert _group(graph.op[member]) == _group(coarse.graph.op[name])


@given(st.data(), DELAYS)
def test_the_edges_are_those_of_the_quotient_graph(training_graphs: Any, data: Any, delay: float) -> None:
    graph = data.draw(training_graphs())
    coarse = fuse(graph, delay_seconds=delay)
    quotient = nx.quotient_graph(graph.nx, [set(members) for members in coarse.members.values()])
    assert nx.is_directed_acyclic_graph(quotient)
    first = {frozenset(members): name for name, members in coarse.members.items()}
    assert {(first[u], first[v]) for u, v in quotient.edges} == set(coarse.graph.nx.edges)


@given(st.data(), DELAYS)
def test_tensors_that_are_read_outside_or_kept_remain(training_graphs: Any, data: Any, delay: float) -> None:
    graph = data.draw(training_graphs())
    coarse = fuse(graph, delay_seconds=delay)
    own = {member: name for name, members in coarse.members.items() for member in members}
    for name, tensor in graph.tensor.items():
        outside = {own[reader.name] for reader in graph.readers[name]} - {own[graph.producer[name].name]}
        if outside or tensor.keep:
            left = coarse.graph.tensor[name]
            assert (left.nbytes, left.keep) == (tensor.nbytes, tensor.keep)
            assert {reader.name for reader in coarse.graph.readers[name]} == outside


@given(st.data(), DELAYS)
def test_the_fused_op_needs_what_its_members_need_in_turn(training_graphs: Any, data: Any, delay: float) -> None:
    """Peak of the members' own memory, counted anew, is at most outputs + temporaries of the fused op."""
    graph = data.draw(training_graphs())
    coarse = fuse(graph, delay_seconds=delay)
    for name, members in coarse.members.items():
        fused = coarse.graph.op[name]
        charged = fused.temp_bytes + sum(t.nbytes for t in fused.outputs if t.alias_of is None)
        assert _peak(graph, members, {t.name for t in fused.outputs}) <= charged


def _peak(graph: Graph, members: tuple[str, ...], leaving: set[str]) -> int:
    def base(name: str) -> str:
        while graph.tensor[name].alias_of is not None:
            name = graph.tensor[name].alias_of
        return name

    peak = 0
    for i, member in enumerate(members):
        alive = set()
        for j, other in enumerate(members):
            if j <= i:
                alive |= {base(t.name) for t in graph.op[other].outputs if j == i or t.name in leaving}
            if j >= i:
                alive |= {base(n) for n in graph.op[other].inputs if graph.producer[n].name in members[: i + 1]}
        inside = {t.name for m in members for t in graph.op[m].outputs}
        peak = max(peak, graph.op[member].temp_bytes + sum(graph.tensor[n].nbytes for n in alive & inside))
    return peak


@given(st.data(), DELAYS)
def test_fusing_again_changes_nothing(training_graphs: Any, data: Any, delay: float) -> None:
    once = fuse(data.draw(training_graphs()), delay_seconds=delay).graph
    again = fuse(once, delay_seconds=delay)
    assert len(again.graph) == len(once)


def _makespan(graph: Graph, send: Mapping[str, float]) -> float:
    """The step with a device for each group, all of its ops at once: every op starts when its inputs are there."""
    finish: dict[str, float] = {}
    for op in (graph.ops[i] for i in graph.order):
        arrivals = [0.0]
        for name in op.inputs:
            source = graph.producer[name]
            arrivals.append(finish[source.name] + (send[name] if _group(source) != _group(op) else 0.0))
        arrivals += [finish[name] for name in op.after]
        finish[op.name] = max(arrivals) + (op.seconds or 0.0)
    return max(finish.values())


def _assert_no_delay(graph: Graph, send: Mapping[str, float]) -> None:
    assert _makespan(fuse(graph).graph, send) == pytest.approx(_makespan(graph, send))


@given(st.data(), st.randoms(use_true_random=False))
def test_fusion_without_delay_keeps_the_critical_path(training_graphs: Any, data: Any, random: Random) -> None:
    graph = data.draw(training_graphs())
    for longest in (0, 3, 20):
        _assert_no_delay(graph, {name: float(random.randint(0, longest)) for name in graph.tensor})


def test_an_op_of_no_work_is_late_when_its_input_comes_from_another_group() -> None:
    """b -> d must stay apart: d waits 3 s for c, which b does not; fused, the step would take 22 s, not 19 s."""
    graph = Graph(
        (
            Op("a", "x", (), (Tensor("t", 1),), seconds=0.0),
            Op("b", "x", seconds=8.0, group="g"),
            Op("c", "x", ("t",), (Tensor("u", 1),), seconds=0.0, group="g"),
            Op("d", "x", ("u",), (Tensor("v", 1),), ("b",), seconds=8.0, group="g"),
            Op("e", "x", ("v",), seconds=0.0),
        )
    )
    send = dict.fromkeys("tuv", 3.0)
    assert _makespan(graph, send) == 19.0
    assert ("b", "d") not in fuse(graph).members.values()
    _assert_no_delay(graph, send)
    at_home = graph.with_ops((replace(graph.ops[0], group="g"), *graph.ops[1:]))
    assert sorted(map(len, fuse(at_home).members.values())) == [1, 4]


def _chain(n: int, **common: Any) -> Graph:
    ops = [Op("op0", "mm", (), (Tensor("t0", 8),), group="op0", **common)]
    for i in range(1, n):
        ops.append(Op(f"op{i}", "mm", (f"t{i - 1}",), (Tensor(f"t{i}", 8, keep=i == n - 1),), group="op0", **common))
    return Graph(tuple(ops))


def test_a_chain_becomes_one_op_that_holds_two_inner_tensors() -> None:
    (op,) = fuse(_chain(10, seconds=1.0)).graph.ops
    assert (op.kind, op.seconds, op.temp_bytes, [t.name for t in op.outputs]) == ("fused", 10.0, 16, ["t9"])


def test_the_diamond_is_fused_without_a_cycle_and_a_way_through_another_group_is_not() -> None:
    diamond = Graph(
        (
            Op("a", "x", (), (Tensor("t", 1),), group="a"),
            Op("b", "x", ("t",), (Tensor("u", 1),)),
            Op("c", "x", ("t", "u"), (Tensor("v", 1),), group="a"),
        )
    )
    assert len(fuse(diamond, delay_seconds=inf).graph) == 3
    inside = diamond.with_ops((diamond.ops[0], Op("b", "x", ("t",), (Tensor("u", 1),), group="a"), diamond.ops[2]))
    assert len(fuse(inside, delay_seconds=inf).graph) == 1


def test_a_fused_view_keeps_the_memory_that_it_lies_in() -> None:
    graph = Graph(
        (
            Op("a", "x", (), (Tensor("big", 100),), group="a"),
            Op("b", "view", ("big",), (Tensor("mid", 10, alias_of="big"),), group="a"),
            Op("c", "view", ("mid",), (Tensor("small", 1, alias_of="mid", keep=True),), group="a"),
        )
    )
    (op,) = fuse(graph).graph.ops
    assert [(t.name, t.nbytes, t.alias_of) for t in op.outputs] == [("big", 100, None), ("small", 1, "big")]
    assert op.temp_bytes == 0


def test_links_to_fused_ops_name_the_fused_op() -> None:
    graph = _chain(2, seconds=1.0)
    late = Op("late", "x", after=("op1",), phase="backward", forward="op1")
    coarse = fuse(graph.with_ops((*graph.ops, late)))
    assert (coarse.graph.op["late"].after, coarse.graph.op["late"].forward) == (("op0",), "op0")


def test_an_unknown_time_is_not_declared_unless_it_is_given() -> None:
    assert fuse(_chain(3)).graph.ops[0].seconds is None
    assert fuse(_chain(3), seconds=lambda op: 2.0).graph.ops[0].seconds == 6.0


def test_expand_gives_every_member_its_device() -> None:
    coarse: Coarse = fuse(_chain(3, seconds=1.0))
    assert coarse.expand({"op0": "gpu"}) == {"op0": "gpu", "op1": "gpu", "op2": "gpu"}
    with pytest.raises(BaechiError, match="'op0' has no device"):
        coarse.expand({})
