"""A drawn graph has the ops, tensors and devices of the graph."""

import io

import networkx as nx
import pytest

from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.models.graphs import random_dag
from baechi.report.graphs import by_module, graph_dot, graph_graphml, graph_text, ops_of


def two_layers() -> Graph:
    """Two layers, forward and back; an input and an update that lie in no module."""
    return Graph(
        (
            Op("x", "input", outputs=(Tensor("x", 1),), persistent_bytes=1),
            Op(
                "w", "parameter", outputs=(Tensor("w", 2, (2,), held=2),), persistent_bytes=2, group="p:net.0.fc.weight"
            ),
            Op("a", "mm", ("x", "w"), (Tensor("a", 4),), flops=10, module="net.0.fc"),
            Op("b", "mm", ("a",), (Tensor("b", 8),), flops=20, module="net.1.fc"),
            Op("d", "mm", ("b", "a"), (Tensor("d", 16),), phase="backward", flops=5, module="net.0.fc"),
            Op("u", "update", ("d", "w"), phase="update", group="p:net.0.fc.weight", after=("b",)),
        ),
        "two",
    )


def test_modules_hold_all_that_is_theirs() -> None:
    drawn = by_module(two_layers(), 2, {op.name: "d:0" if op.name != "b" else "d:1" for op in two_layers().ops})
    assert set(drawn) == {"(input)", "net.0", "net.1"}
    part = drawn.nodes["net.0"]["part"]
    assert (part.ops, part.flops, part.persistent_bytes, part.made_bytes, part.devices) == (4, 15, 2, 22, ("d:0",))
    assert set(drawn.edges) == {("(input)", "net.0"), ("net.0", "net.1"), ("net.1", "net.0")}
    assert drawn.edges["net.1", "net.0"]["nbytes"] == 8
    assert set(by_module(two_layers(), 1)) == {"(input)", "net"}


@pytest.mark.parametrize("seed", range(5))
def test_graphml_reads_back(seed: int) -> None:
    graph = random_dag(seed, 30)
    back = nx.read_graphml(io.BytesIO(graph_graphml(ops_of(graph)).encode()))
    assert set(back.edges) == set(graph.nx.edges)
    assert {name: data["persistent_bytes"] for name, data in back.nodes(data=True)} == {
        op.name: op.persistent_bytes for op in graph.ops
    }


def test_dot_quotes_names_and_colours_devices() -> None:
    graph = Graph((Op('say "a"', "x\\y", outputs=(Tensor("t", 1024),)), Op("b", "x", ("t",))), "g")
    assert graph_dot(ops_of(graph, {'say "a"': "d:0", "b": "d:1"})).splitlines() == [
        'digraph "g" {',
        "  node [shape=box, style=filled, fillcolor=white];",
        '  "say \\"a\\"" [label="say \\"a\\"\\nx\\\\y\\nd:0", fillcolor="#8dd3c7"];',
        '  "b" [label="b\\nx\\nd:1", fillcolor="#ffffb3"];',
        '  "say \\"a\\"" -> "b" [label="1.00 KiB"];',
        "}",
    ]


def test_text_names_every_op() -> None:
    graph = two_layers()
    lines = graph_text(graph, ops_of(graph), 20).splitlines()
    assert lines[0].startswith("two: 6 ops, 4 forward, 1 backward, 1 update")
    assert [line.split()[0] for line in lines[3:]] == [op.name for op in graph.ops]
