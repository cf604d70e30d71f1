from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import Pass, Pipeline, Prune, run, violations
from baechi.passes.lighten import Lighten

A = Op("a", "input", outputs=(Tensor("x", 8),), persistent_bytes=8, group="g")
B = Op("b", "mm", inputs=("x",), outputs=(Tensor("y", 8, keep=True),), group="g")
GRAPH = Graph((A, B))
PASSES = (Prune(),)


@dataclass(frozen=True, slots=True)
class Becomes:
    """A pass that returns what it is told to."""

    result: Graph
    name: str = "becomes"

    def __call__(self, graph: Graph) -> Graph:
        return self.result


@pytest.mark.parametrize(
    ("ops", "breach"),
    [
        ((A, B, Op("c", "mm")), "op 'c' is new"),
        ((A, replace(B, inputs=())), "op 'b' has other inputs"),
        ((A, replace(B, outputs=(Tensor("y", 4, keep=True),))), "op 'b' has other outputs"),
        ((A,), "result 'y' is lost"),
        ((A, replace(B, outputs=(Tensor("y", 8),))), "result 'y' is lost"),
        ((replace(A, persistent_bytes=7), B), "persistent bytes were 8 and are 7"),
        ((A, replace(B, group=None)), "colocation group 'g' is split"),
    ],
)
def test_each_breach_of_the_contract_is_named(ops: tuple[Op, ...], breach: str) -> None:
    assert violations(GRAPH, Graph(ops)) == (breach,)
    with pytest.raises(BaechiError, match="pass 'becomes' broke the graph") as raised:
        run(GRAPH, [Becomes(Graph(ops))])
    assert raised.value.code == "B208"
    assert breach in raised.value.what


def test_an_op_that_is_named_like_a_group_is_no_member_of_it() -> None:
    """Op `a` moves to a group of its own; the two that share the group called `a` stay together."""
    a, one, other = Op("a", "mm"), Op("one", "mm", group="a"), Op("other", "mm", group="a")
    assert violations(Graph((a, one, other)), Graph((replace(a, group="b"), one, other))) == ()
    split = Graph((a, one, replace(other, group=None)))
    assert violations(Graph((a, one, other)), split) == ("colocation group 'a' is split",)


def test_all_breaches_are_reported_at_once() -> None:
    assert len(violations(GRAPH, Graph((replace(A, persistent_bytes=0), replace(B, inputs=(), group=None))))) == 3


@given(st.data())
def test_every_pass_keeps_the_contract_and_is_idempotent(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    for one in PASSES:
        once = one(graph)
        assert violations(graph, once) == ()
        assert one(once).digest == once.digest
    together = Pipeline(PASSES)(graph)
    assert together.digest == run(graph, PASSES).digest


def test_the_passes_satisfy_the_protocol() -> None:
    passes = (Prune(), Lighten(), Pipeline(PASSES))
    assert all(isinstance(one, Pass) for one in passes)
    assert [one.name for one in passes] == ["prune", "lighten", "pipeline"]
