"""Micro-batches of a graph of costs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.json import graph_from_dict, graph_to_dict
from baechi.ir.op import Op, Tensor
from baechi.ir.verify import verify
from baechi.passes import microbatches
from baechi.placers import Single

STEP = Graph(
    (
        Op("w", "parameter", outputs=(Tensor("w", 40, held=40),), persistent_bytes=40, group="p:w"),
        Op("x", "input", outputs=(Tensor("x", 9, held=9),), persistent_bytes=9),
        Op("f", "mm", ("x", "w"), (Tensor("y", 10), Tensor("v", 10, alias_of="y")), seconds=6.0, temp_bytes=3),
        Op("b", "mm", ("y",), (Tensor("g", 40, seconds=8.0),), phase="backward", flops=12.0, forward="f", key="b"),
        Op("u", "update", ("g", "w"), after=("f",), phase="update", seconds=1.0, group="p:w", forward="b"),
    )
)


def test_copies_share_what_persists_and_feed_one_update() -> None:
    graph = microbatches(STEP, 4)
    assert len(graph) == 2 + 3 * 4
    assert graph.op["w"] == STEP.op["w"]
    update = graph.op["u"]
    assert update.inputs == ("g@0", "g@1", "g@2", "g@3", "w")
    assert update.after == ("f@0", "f@1", "f@2", "f@3")
    assert (update.seconds, update.forward, update.copy) == (1.0, "b@0", None)
    copy = graph.op["f@2"]
    assert (copy.inputs, copy.seconds, copy.temp_bytes, copy.copy) == (("x@2", "w"), 1.5, 1, 2)
    assert [(t.name, t.nbytes, t.alias_of) for t in copy.outputs] == [("y@2", 3, None), ("v@2", 3, "y@2")]
    assert [graph.op[f"x@{k}"].persistent_bytes for k in range(4)] == [9, 0, 0, 0]
    back = graph.op["b@3"]
    assert (back.flops, back.forward, back.key, back.outputs[0].seconds) == (3.0, "f@3", "", 2.0)
    assert {op.group for op in graph.ops if op.name.startswith("b@")} == {"b@"}


def test_a_group_of_ones_own_is_no_group_of_the_file() -> None:
    graph = microbatches(Graph((Op("a", "node"), Op("b", "node", group="a@"))), 2)
    assert {op.name: op.group for op in graph.ops} == {"a@0": "a@@", "a@1": "a@@", "b@0": "a@", "b@1": "a@"}


def test_the_micro_batch_survives_json() -> None:
    graph = microbatches(STEP, 2)
    assert graph_from_dict(json.loads(json.dumps(graph_to_dict(graph)))).ops == graph.ops


def test_no_micro_batches_is_an_error_and_one_is_the_graph() -> None:
    assert microbatches(STEP, 1) is STEP
    with pytest.raises(BaechiError, match="0 is no number of micro-batches"):
        microbatches(STEP, 0)


@given(st.data(), st.integers(2, 5))
def test_work_and_memory_are_those_of_the_whole_batch(training_graphs: Any, data: Any, count: int) -> None:
    graph = data.draw(training_graphs())
    unrolled = microbatches(graph, count)
    for field in ("flops", "persistent_bytes"):
        assert sum(getattr(op, field) for op in unrolled.ops) == pytest.approx(
            sum(getattr(op, field) for op in graph.ops)
        )
    assert len(unrolled.groups) == len(graph.groups)
    cluster = Cluster((Device("d", 1 << 50, flops_per_second={"float32": 1e9}),))
    plan = Single().place(unrolled, cluster)
    assert verify(unrolled, plan) == ()
    times = Problem(graph, cluster).arrays.ticks.sum(), Problem(unrolled, cluster).arrays.ticks.sum()
    assert times[1] == pytest.approx(times[0], abs=len(unrolled))
