from typing import Any

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import prune


@given(st.data())
def test_what_stays_is_what_a_result_reads_from(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    flow = nx.DiGraph((u, v) for u, v, tensors in graph.nx.edges(data="tensors") if tensors)
    flow.add_nodes_from(op.name for op in graph.ops)
    results = [op for op in graph.ops if op.kind == "update" or any(t.keep for t in op.outputs)]
    roots = [*results, *(op for op in graph.ops if op.persistent_bytes)]
    needed = {op.name for op in roots}.union(*(nx.ancestors(flow, op.name) for op in roots))
    expected = needed if results else {op.name for op in graph.ops}
    assert {op.name for op in prune(graph).ops} == expected


def test_a_graph_without_results_is_left_alone() -> None:
    graph = Graph((Op("a", "x", outputs=(Tensor("t", 1),)), Op("b", "x", inputs=("t",))))
    assert prune(graph) is graph


def test_links_to_dropped_ops_go_with_them() -> None:
    dead = Op("dead", "mm")
    kept = Op("kept", "mm", outputs=(Tensor("y", keep=True),), after=("dead",), phase="backward", forward="dead")
    (op,) = prune(Graph((dead, kept))).ops
    assert (op.after, op.forward) == ((), None)
