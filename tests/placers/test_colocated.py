"""Which ops had better sit together: by hand, and as connected components of the rules' pairs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.placers.colocated import colocated, marks_of

Sets = set[frozenset[str]]


def _linear() -> Graph:
    """One linear layer with a view of its weight, its backward and its update; a buffer beside it."""
    return Graph(
        (
            Op("w", "parameter", outputs=(Tensor("w", 4, held=4),), persistent_bytes=4),
            Op("n", "buffer", outputs=(Tensor("n", 4, held=4),), persistent_bytes=4),
            Op("x", "input", outputs=(Tensor("x", 4),)),
            Op("t", "aten.t", ("w",), (Tensor("wt", 4, alias_of="w"),)),
            Op("mm", "aten.mm", ("x", "wt"), (Tensor("y", 4),)),
            Op("add", "aten.add", ("n",), (Tensor("n1", 4),)),
            Op("mm_1", "aten.mm", ("y", "x"), (Tensor("g", 4),), phase="backward", forward="mm"),
            Op("t_1", "aten.t", ("g",), (Tensor("gt", 4, alias_of="g"),), phase="backward", forward="mm"),
            Op("step", "update", ("gt", "w"), phase="update"),
            Op("store", "assign", ("n1", "n"), phase="update"),
        )
    )


def _sets(graph: Graph) -> Sets:
    """The sets of more than one op."""
    labels = colocated(Problem(graph, Cluster((Device("d", 1 << 40),))), marks_of(graph))
    sets: dict[int, set[str]] = {}
    for op, label in zip(graph.ops, labels.tolist(), strict=True):
        sets.setdefault(label, set()).add(op.name)
        assert graph.ops[label].name in sets[label]
    return {frozenset(names) for names in sets.values() if len(names) > 1}


def test_a_layer_is_drawn_together_by_hand() -> None:
    """The gradient joins its weight through a view, its maker its twin; nothing joins the input."""
    layer = frozenset({"w", "t", "step", "t_1", "mm_1", "mm"})
    assert _sets(_linear()) == {layer, frozenset({"n", "store"})}


def test_without_twins_the_forward_op_stays_apart() -> None:
    graph = _linear().with_ops(replace(op, forward=None) for op in _linear().ops)
    assert _sets(graph) == {frozenset({"w", "t", "step", "t_1", "mm_1"}), frozenset({"n", "store"})}


def test_a_gradient_that_somebody_else_reads_does_not_join() -> None:
    norm = Op("norm", "aten.norm", ("gt",), (Tensor("z"),), phase="backward")
    graph = _linear().with_ops((*_linear().ops, norm))
    assert _sets(graph) == {frozenset({"w", "t", "step"}), frozenset({"mm", "mm_1", "t_1"}), frozenset({"n", "store"})}


def test_the_parameter_behind_a_view_is_found() -> None:
    ops = [op if op.name != "step" else Op("step", "update", ("gt", "wt"), phase="update") for op in _linear().ops]
    assert any({"w", "step"} <= one for one in _sets(_linear().with_ops(ops)))


def _pairs(graph: Graph) -> Iterator[tuple[str, str]]:
    """Who shares a device with whom, rule by rule."""
    for ops in graph.groups.values():
        yield from ((ops[0].name, op.name) for op in ops)
    root = {name: name for name in graph.tensor}
    for i in graph.order:
        for t in graph.ops[i].outputs:
            root[t.name] = root[t.alias_of] if t.alias_of else t.name
    for op in graph.ops:
        owners = [graph.producer[root[name]] for name in op.inputs]
        if op.kind in ("assign", "update"):
            yield from ((op.name, owner.name) for owner in owners if owner.kind in ("buffer", "parameter"))
        if op.phase == "backward" and op.forward:
            yield op.name, op.forward
        if _views(op):
            yield op.name, graph.producer[op.inputs[0]].name
        if op.kind == "update":
            yield from _gradients(graph, op, op.inputs)


def _gradients(graph: Graph, reader: Op, inputs: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for source in (graph.producer[name] for name in inputs):
        readers = {r.name for t in source.outputs for r in graph.readers[t.name]}
        if readers == {reader.name} and source.kind not in ("buffer", "parameter"):
            yield reader.name, source.name
            if _views(source):
                yield from _gradients(graph, source, source.inputs)


def _views(op: Op) -> bool:
    return len(op.inputs) == 1 and {t.alias_of for t in op.outputs} == set(op.inputs)


@given(st.data())
def test_the_sets_are_the_components_of_the_rules(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    rules = nx.Graph(_pairs(graph))
    assert _sets(graph) == {frozenset(part) for part in nx.connected_components(rules) if len(part) > 1}
