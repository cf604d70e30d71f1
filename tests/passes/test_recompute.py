"""Recomputation and offloading on the IR: the step stays the same step, and its memory is what theory says."""

from dataclasses import replace
from math import isqrt
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baechi.backends.plans import plan_in_program_order
from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.ir.cluster import UNLIMITED_BYTES, Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.passes import offload, offloadable, recompute, repeatable
from baechi.passes.storage import storage
from baechi.placers import Single
from baechi.sim import simulate

ONE = Cluster((Device("d", UNLIMITED_BYTES),))


def chain(layers: int, nbytes: int = 10) -> Graph:
    """Layers whose backward ops each read the layer's result and the gradient behind it."""
    ops = [Op("x", "input", outputs=(Tensor("x", 0),), seconds=0.0)]
    for i in range(layers):
        made = (Tensor(f"h{i}", nbytes),)
        ops.append(Op(f"f{i}", "layer", (f"h{i - 1}" if i else "x",), made, seconds=1.0, group=f"g{i}"))
    gradient = ""
    for i in reversed(range(layers)):
        read = (f"h{i}", gradient) if gradient else (f"h{i}",)
        gradient = f"d{i}"
        kept = i == 0
        ops.append(Op(f"b{i}", "back", read, (Tensor(gradient, 0, keep=kept),), (), "backward", seconds=1.0))
    return Graph(tuple(ops))


def peak(graph: Graph) -> int:
    return Single().place(graph, ONE).predicted.peak_bytes["d"]


def computed(graph: Graph) -> dict[str, Any]:
    """What each result and each backward op reads, as nested tuples: a copy gives what its original gives."""
    value: dict[str, Any] = {}
    for op in (graph.ops[i] for i in graph.order):
        if op.kind in ("offload", "fetch"):
            value[op.outputs[0].name] = value[op.inputs[0]]
            continue
        name = op.forward if op.name.endswith((".again", ".back")) and op.phase == "backward" else op.name
        for k, t in enumerate(op.outputs):
            value[t.name] = hash((name, k, *(value[u] for u in op.inputs)))
    return value


@pytest.mark.parametrize("layers", [9, 16, 25])
def test_a_chain_in_segments_of_its_root_takes_twice_the_root(layers: int) -> None:
    """Chen et al. 2016: sqrt(n) checkpoints and one segment of sqrt(n) layers at a time, neither with its last."""
    root = isqrt(layers)
    inner = [f"f{i}" for i in range(layers) if i % root != root - 1]
    assert peak(chain(layers)) == 10 * layers
    # Of the checkpoints the last is used up before the first segment is made again.
    assert peak(recompute(chain(layers), inner)) == 10 * 2 * (root - 1)
    assert Single().place(recompute(chain(layers), inner), ONE).predicted.step_seconds == 2 * layers + len(inner)


@given(st.integers(2, 14), st.integers(0, 2**32))
def test_no_choice_of_layers_makes_a_chain_hold_more(layers: int, seed: int) -> None:
    graph, random = chain(layers), Random(seed)
    names = [f"f{i}" for i in range(layers) if random.random() < 0.5]
    lighter = recompute(graph, names)
    assert peak(lighter) <= peak(graph)
    away = [f"h{i}" for i in range(layers) if random.random() < 0.5]
    assert peak(offload(graph, away)) <= peak(graph)
    both = offload(lighter, [t for t in away if t in offloadable(lighter)])
    assert peak(both) <= peak(graph)
    assert computed(both)["d0"] == computed(graph)["d0"]


def test_offloading_all_but_one_layer_leaves_two() -> None:
    """vDNN: a layer's input is on its way to the host while its output exists."""
    graph = chain(8)
    lighter = offload(graph, [f"h{i}" for i in range(7)])
    assert peak(lighter) == 20
    assert all(t.held == t.nbytes for op in lighter.ops if op.kind == "offload" for t in op.outputs)


def test_copies_start_after_the_gradient_and_after_forward_in_any_order() -> None:
    lighter = recompute(chain(6), ["f1", "f2", "f3"])
    copies = {op.name: op.after for op in lighter.ops if op.name.endswith(".again")}
    assert copies == {"f1.again": ("b4", "f2"), "f2.again": ("b4", "f3"), "f3.again": ("b4", "f4")}
    assert [op.name for op in lighter.ops][9:13] == ["f1.again", "f2.again", "f3.again", "b3"]


def test_a_copy_does_not_wait_for_the_update_that_waits_for_it() -> None:
    """The update reads what forward made, and overwrites what the copy reads."""
    ops = (
        Op("w", "parameter", outputs=(Tensor("w", 8),), persistent_bytes=8),
        Op("f", "mm", ("w",), (Tensor("y", 8),)),
        Op("u", "update", ("y",), after=("f",), phase="update"),
        Op("b", "mm", ("y",), (Tensor("g", 8),), phase="backward"),
    )
    lighter = recompute(Graph(ops), ["f"])
    assert {op.name: op.after for op in lighter.ops} == {
        "w": (), "f": (), "u": ("f", "f.again"), "f.again": (), "b": ()
    }  # fmt: skip


@given(st.data())
def test_the_step_stays_the_same_step(training_graphs: Any, data: Any) -> None:
    graph = data.draw(training_graphs())
    random = Random(data.draw(st.integers(0, 2**32)))
    again = [name for name in sorted(repeatable(graph)) if random.random() < 0.6]
    lighter = recompute(graph, again)
    away = [name for name in sorted(offloadable(lighter)) if random.random() < 0.6]
    lighter = offload(lighter, away)
    before, after = computed(graph), computed(lighter)
    assert {name: after[name] for name in before} == before
    assert {t.name for t in lighter.tensor.values() if t.keep} == {t.name for t in graph.tensor.values() if t.keep}
    assert sum(op.persistent_bytes for op in lighter.ops) == sum(op.persistent_bytes for op in graph.ops)
    late = [op for op in graph.ops if op.phase == "backward"]
    gone = {t.name for name in again for t in graph.op[name].outputs}
    assert not gone.intersection(name for op in late for name in lighter.op[op.name].inputs)
    bases = storage(lighter)
    assert not set(away).intersection(
        bases[name] for op in lighter.ops if op.phase == "backward" for name in op.inputs if op.kind != "fetch"
    )
    plan = plan_in_program_order(lighter, dict.fromkeys(lighter.op, "d"), ONE)
    assert simulate(Problem(lighter, ONE), plan).ops


def test_a_view_is_made_again_with_what_it_looks_at() -> None:
    ops = (
        Op("a", "tanh", (), (Tensor("x", 8),), seconds=1.0),
        Op("v", "view", ("x",), (Tensor("y", 8, alias_of="x"),)),
        Op("f", "sum", ("y",), (Tensor("z", 1, keep=True),), seconds=1.0),
        Op("b", "back", ("y",), (Tensor("w", 8, alias_of="x"),), phase="backward"),
    )
    lighter = recompute(Graph(ops), ["a"])
    assert lighter.op["v.again"].inputs == ("x.again",)
    assert lighter.tensor["y.again"].alias_of == "x.again"
    assert lighter.tensor["w"].alias_of == "x.again"
    moved = offload(Graph(ops), ["x"])
    assert moved.op["v.back"].inputs == ("x.back",)
    assert moved.op["x.offload"].group == moved.op["x.fetch"].group


def test_an_update_waits_for_the_second_reader_too() -> None:
    ops = (
        Op("w", "parameter", (), (Tensor("w", 4, held=4),), persistent_bytes=4, group="w"),
        Op("f", "mm", ("w",), (Tensor("y", 8),), seconds=1.0),
        Op("b", "back", ("y",), (Tensor("g", 4),), phase="backward", seconds=1.0),
        Op("u", "update", ("g", "w"), after=("f",), phase="update", group="w"),
    )
    assert recompute(Graph(ops), ["f"]).op["u"].after == ("f", "f.again")


def test_dropout_is_done_again_by_its_mask() -> None:
    mask = Tensor("m", 2)
    ops = (
        Op("a", "mm", (), (Tensor("x", 8),), seconds=1.0),
        Op("drop", "aten.native_dropout", ("x",), (Tensor("y", 8), mask), draws=True),
        Op("c", "sum", ("y",), (Tensor("z", 1, keep=True),)),
        Op("b", "back", ("y",), (Tensor("g", 8),), phase="backward"),
        Op(
            "bd", "aten.native_dropout_backward", ("g", "m"), (Tensor("gx", 8, keep=True),), phase="backward", flops=3.0
        ),
    )
    lighter = recompute(Graph(ops), ["drop"])
    copy = lighter.op["drop.again"]
    assert (copy.kind, copy.inputs, copy.flops, copy.draws) == ("aten.native_dropout_backward", ("x", "m"), 3.0, False)
    assert lighter.op["bd"].inputs == ("g", "m")
    noise = replace(ops[1], kind="aten.bernoulli")
    with pytest.raises(BaechiError, match="'drop' cannot run twice"):
        recompute(Graph((ops[0], noise, *ops[2:])), ["drop"])


@pytest.mark.parametrize("name", ["nobody", "x", "b0"])
def test_what_cannot_run_twice_is_refused(name: str) -> None:
    with pytest.raises(BaechiError) as raised:
        recompute(chain(2), [name])
    assert raised.value.code == "B212"


@pytest.mark.parametrize("name", ["nobody", "x", "d0"])
def test_what_cannot_wait_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BaechiError) as raised:
        offload(chain(2), [name])
    assert raised.value.code == "B213"
