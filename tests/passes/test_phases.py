from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import follow, forward_only, hosts


@given(st.data())
def test_every_op_gets_a_device_and_no_group_is_split(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    placed = forward_only(graph)
    assert {op.phase for op in placed.ops} == {"forward"}
    device = {op: f"cuda:{i}" for i, ops in enumerate(placed.groups.values()) for op in (o.name for o in ops)}
    whole = follow(graph, device)
    assert set(whole) == {op.name for op in graph.ops}
    assert all(whole[name] == where for name, where in device.items())
    for ops in graph.groups.values():
        assert len({whole[op.name] for op in ops}) == 1


@given(st.data())
def test_ungrouped_backward_ops_sit_with_their_twins(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs(grouped=False))
    host = hosts(graph)
    for op in graph.ops:
        if op.forward is not None and host[op.forward] == op.forward:
            assert host[op.name] == op.forward


@given(st.data())
def test_charging_conserves_every_sum(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    placed = forward_only(graph)
    for cost in ("seconds", "flops", "moved_bytes", "persistent_bytes"):
        assert sum(getattr(o, cost) for o in placed.ops) == sum(getattr(o, cost) for o in graph.ops)


@given(st.data())
def test_what_a_later_phase_reads_is_kept(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    placed = forward_only(graph, charge=False)
    for name, tensor in placed.tensor.items():
        later = [op.name for op in graph.readers[name] if op.name not in placed.op]
        assert tensor.keep or not later


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
    assert hosts(_step()) == {
        "w": "w", "x": "x", "mm": "mm", "view": "view", "one": "mm", "mm_1": "mm", "sum": "mm", "step": "w",
    }  # fmt: skip


def test_an_op_that_is_named_like_a_group_is_no_member_of_it() -> None:
    """The backward op in the group called `y` has a twin; the forward op called `y` is none of its members."""
    ops = (
        Op("x", "mm", outputs=(Tensor("x", 2),)),
        Op("y", "mm", ("x",), (Tensor("y", 4),)),
        Op("x_1", "mm", ("y",), (Tensor("g", 8),), phase="backward", forward="x", group="y"),
    )
    assert hosts(Graph(ops)) == {"x": "x", "y": "y", "x_1": "x"}


def test_charges_by_hand() -> None:
    op = forward_only(_step(), seconds=lambda op: op.seconds or 0.0).op
    assert (op["mm"].seconds, op["w"].seconds, op["view"].seconds) == (3.75, 0.0, 0.0)  # mm pays for w's update
    assert op["mm"].temp_bytes == 11  # the backward matmul: 3 while it runs and the 8 that it makes
    assert op["mm"].outputs[0].keep  # backward reads a view of it
    assert op["view"].outputs[0].keep
    assert not op["x"].outputs[0].keep


def test_a_charged_op_has_no_declared_time_when_a_follower_has_none() -> None:
    assert forward_only(_step()).op["mm"].seconds is None  # the tangent declares none


def test_a_forward_op_that_waits_for_backward_follows_it() -> None:
    graph = _step()
    late = Op("late", "mm", ("g",), (Tensor("z", 1),))
    assert hosts(graph.with_ops((*graph.ops, late)))["late"] == "mm"


def test_no_forward_op_and_no_device_are_errors() -> None:
    with pytest.raises(BaechiError, match="no forward op") as raised:
        forward_only(Graph((Op("a", "mm", phase="backward"),)))
    assert raised.value.code == "B209"
    with pytest.raises(BaechiError, match="'mm' has no device") as raised:
        follow(_step(), {"w": "d", "x": "d", "view": "d"})
    assert raised.value.code == "B405"
