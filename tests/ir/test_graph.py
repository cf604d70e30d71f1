"""The graph: what it refuses, and that its two forms and its digest agree."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor

A = Op("a", "input", outputs=(Tensor("x", 8),))
B = Op("b", "relu", inputs=("x",), outputs=(Tensor("y", 8),))


@pytest.mark.parametrize(
    ("ops", "code"),
    [
        ((A, A), "B201"),
        ((A, replace(B, outputs=(Tensor("x"),))), "B202"),
        ((A, replace(B, inputs=("z",))), "B203"),
        ((A, replace(B, inputs=("x", "x"))), "B203"),
        ((A, replace(B, after=("z",))), "B204"),
        ((A, replace(B, outputs=(Tensor("y", alias_of="z"),))), "B205"),
        ((replace(A, flops=float("nan")),), "B206"),
        ((replace(A, seconds=-1.0),), "B206"),
        ((replace(A, temp_bytes=-1),), "B206"),
        ((replace(A, outputs=(Tensor("x", seconds=float("inf")),)),), "B206"),
        ((replace(A, phase="sideways"),), "B206"),  # type: ignore[arg-type]
        ((replace(A, inputs=("y",)), B), "B207"),
        ((replace(A, after=("b",)), B), "B207"),
        ((replace(A, after=("a",)),), "B207"),
    ],
)
def test_what_a_graph_refuses(ops: tuple[Op, ...], code: str) -> None:
    with pytest.raises(BaechiError) as caught:
        Graph(ops)
    assert caught.value.code == code


def test_a_cycle_is_shown() -> None:
    with pytest.raises(BaechiError, match=r"a -> b -> a|b -> a -> b"):
        Graph((replace(A, inputs=("y",)), B))


@st.composite
def random_graphs(draw: st.DrawFn) -> Graph:
    """Ops in a drawn program order that need not be topological."""
    n = draw(st.integers(1, 12))
    ops = []
    for i in range(n):
        sources = draw(st.lists(st.integers(0, i - 1), unique=True, max_size=3)) if i else []
        after = draw(st.lists(st.integers(0, i - 1), unique=True, max_size=2)) if i else []
        ops.append(
            Op(
                f"o{i}",
                "op",
                inputs=tuple(f"t{s}" for s in sources),
                outputs=(Tensor(f"t{i}", i),),
                after=tuple(f"o{a}" for a in after),
                group=draw(st.sampled_from([None, "g", "h"])),
            )
        )
    return Graph(tuple(draw(st.permutations(ops))))


@settings(max_examples=60)
@given(random_graphs())
def test_the_order_is_topological(graph: Graph) -> None:
    names = [graph.ops[i].name for i in graph.order]
    assert sorted(names) == sorted(op.name for op in graph.ops)
    position = {name: i for i, name in enumerate(names)}
    assert all(position[a] < position[b] for a, b in graph.nx.edges)


@given(st.integers(2, 30))
def test_a_program_order_that_is_topological_is_kept(n: int) -> None:
    ops = tuple(Op(f"o{i}", "op", (f"t{i // 2}",) if i else (), (Tensor(f"t{i + 1}"),)) for i in range(n))
    first = Op("first", "op", outputs=(Tensor("t0"),))
    assert Graph((first, *ops)).order == tuple(range(n + 1))


@settings(max_examples=60)
@given(random_graphs())
def test_the_networkx_form_has_each_flow_once(graph: Graph) -> None:
    flows = sorted((t, b) for _, b, tensors in graph.nx.edges(data="tensors") for t in tensors)
    assert flows == sorted((t, op.name) for op in graph.ops for t in op.inputs)
    assert flows == sorted((t, op.name) for t, ops in graph.readers.items() for op in ops)
    back = Graph.from_nx(graph.nx)
    assert (back.ops, back.name, back.digest) == (graph.ops, graph.name, graph.digest)


def test_the_networkx_form_is_frozen() -> None:
    with pytest.raises(nx.NetworkXError):
        Graph((A, B)).nx.remove_node("a")


def test_an_op_without_a_group_is_a_group_of_its_own() -> None:
    graph = Graph((replace(A, group="g"), replace(B, group="g"), Op("c", "op")))
    assert {name: [op.name for op in ops] for name, ops in graph.groups.items()} == {"g": ["a", "b"], "c": ["c"]}


def test_an_op_that_is_called_like_a_group_is_not_in_it() -> None:
    graph = Graph((Op("a", "x", group="c"), Op("b", "x", group="c"), Op("c", "x")))
    assert [sorted(op.name for op in ops) for ops in graph.groups.values()] == [["a", "b"], ["c"]]


CHANGES: dict[str, dict[str, Any]] = {
    "kind": {"kind": "gelu"},
    "flops": {"flops": 1.0},
    "moved_bytes": {"moved_bytes": 1},
    "temp_bytes": {"temp_bytes": 1},
    "persistent_bytes": {"persistent_bytes": 1},
    "seconds": {"seconds": 1.0},
    "host_seconds": {"host_seconds": 1.0},
    "group": {"group": "g"},
    "after": {"after": ("a",)},
    "phase": {"phase": "backward"},
    "nbytes": {"outputs": (Tensor("y", 9),)},
    "keep": {"outputs": (Tensor("y", 8, keep=True),)},
    "alias_of": {"outputs": (Tensor("y", 8, alias_of="x"),)},
    "transfer": {"outputs": (Tensor("y", 8, seconds=1.0),)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_sees_every_cost(change: str) -> None:
    assert Graph((A, replace(B, **CHANGES[change]))).digest != Graph((A, B)).digest


def test_the_digest_is_the_same_in_another_process() -> None:
    code = (
        "from baechi.ir.graph import Graph; from baechi.ir.op import Op, Tensor\n"
        "a = Op('a', 'input', outputs=(Tensor('x', 8),))\n"
        "b = Op('b', 'relu', inputs=('x',), outputs=(Tensor('y', 8),))\n"
        "print(Graph((a, b)).digest)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == Graph((A, B)).digest
