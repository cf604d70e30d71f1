"""What is measured of TensorFlow steps, beside what is known of them."""

from dataclasses import replace
from typing import Any

import pytest
import tensorflow as tf

from baechi.backends.plans import plan_in_program_order
from baechi.errors import BaechiError
from baechi.frontends.tf import capture
from baechi.profile.room import check_room
from baechi.profile.tf import machine
from baechi.profile.tf.machine import measure_cpu
from baechi.profile.tf.memory import peaks_of
from baechi.profile.tf.ops import profile_ops
from baechi.profile.tf.run import examples, train, train_plain
from baechi.profile.tf.trace import Buffer, Event, Traced

SIDE = 256
MATRIX = SIDE * SIDE * 4


def make() -> dict[str, Any]:
    weight = tf.Variable(tf.ones((SIDE, SIDE)) / SIDE)

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.matmul(x, weight) ** 2)
        weight.assign_sub(1e-6 * tape.gradient(loss, weight))
        return loss

    return {"step": step, "args": (tf.ones((SIDE, SIDE)),)}


def program_of(given: dict[str, Any]) -> Any:
    return capture(given["step"], given["args"], name="square")


def test_every_op_that_computes_gets_a_time() -> None:
    given = make()
    program = program_of(given)
    seconds = profile_ops(program, given["args"])
    keys = {op.key for op in program.graph.ops if op.flops}
    assert keys <= seconds.keys()
    product, scalar = (
        max(s for key, s in seconds.items() if key.startswith(kind)) for kind in ("tf.MatMul", "tf.Reshape")
    )
    assert product > scalar  # 33 million operations beside none
    assert given["step"].experimental_get_tracing_count() == 0  # the person's own weights are as they were


def test_a_placed_run_is_the_plain_run() -> None:
    given = make()
    program = program_of(given)
    device = {op.name: f"cpu:{i % 2}" if op.group is None else "cpu:1" for i, op in enumerate(program.graph.ops)}
    plan = plan_in_program_order(program.graph, device)
    inputs = examples(given["args"])
    placed = [train(program, plan, inputs, steps=3) for _ in range(2)]
    plain = train_plain(make, inputs, steps=3)
    assert placed[0].losses == placed[1].losses  # each begins with the same weights
    assert placed[0].losses == pytest.approx(plain.losses, rel=1e-5)
    assert len(plain.losses) == 4
    assert plain.losses[-1] < plain.losses[0]
    assert 3 * MATRIX <= plain.peak_bytes["cpu"] <= 8 * MATRIX  # weight, input and product at least
    assert placed[0].peak_bytes["cpu:1"] >= MATRIX


def test_the_peak_is_what_is_there_at_once() -> None:
    """A makes 10 bytes, B reads them into 5, C works in B's memory and takes 7 meanwhile, D makes 1 at the end."""
    node = tf.compat.v1.NodeDef
    device = "/device:CPU:0"
    inputs = {"a": [], "b": ["a"], "c": ["b:0"], "d": ["c", "^a"]}
    graph = tf.compat.v1.GraphDef(node=[node(name=n, op="X", device=device, input=i) for n, i in inputs.items()])
    events = (
        Event("a", "X", device, 0.0, 1.0, 1.0, (Buffer(1, 10),), 0),
        Event("b", "X", device, 1.0, 2.0, 1.0, (Buffer(2, 5),), 0),
        Event("c", "X", device, 2.0, 3.0, 1.0, (Buffer(2, 5),), 7),
        Event("d", "X", device, 3.0, 4.0, 1.0, (Buffer(3, 1),), 0),
    )
    assert peaks_of(Traced(events, (graph,), ()), {device: "cpu:0"}) == {"cpu:0": 15}


def test_a_plan_that_this_machine_cannot_hold() -> None:
    program = program_of(make())
    plan = plan_in_program_order(program.graph, {op.name: "cpu:0" for op in program.graph.ops})
    check_room(plan)
    large = replace(plan, predicted=replace(plan.predicted, peak_bytes={"cpu:0": 2**60}))
    with pytest.raises(BaechiError, match="B610"):
        check_room(large)


def test_examples_stand_for_specs() -> None:
    (floats, integers, plain), named = examples(
        (tf.TensorSpec((2, 3)), tf.TensorSpec((4,), tf.int32), "mode"), {"x": tf.TensorSpec(())}
    )
    assert (floats.shape, floats.dtype, integers.dtype, plain) == ((2, 3), tf.float32, tf.int32, "mode")
    assert named["x"].shape == ()


def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("BAECHI_CACHE", str(tmp_path))
    found = measure_cpu()
    rates = found.rates(processes=False)
    assert all(value > 0 for value in rates.values())
    assert 1e8 < rates["flops_per_second"] < 1e13
    monkeypatch.setattr(machine, "_measure", lambda: None)
    assert measure_cpu() == found
