"""A placed TensorFlow step trains as the step itself does, on the devices that the plan says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from baechi.backends.plans import plan_in_program_order
from baechi.backends.tf.placed import PlacedStep
from baechi.errors import BaechiError
from baechi.frontends.tf import capture
from tests.backends.tf.net import STEPS, Net, Trained, make_net, spread


def captured(net: Net) -> Any:
    return capture(net.step, (net.x, net.y))


def devices_of(step: PlacedStep) -> set[str]:
    return {node.device[-5:] for graph in step.partition_graphs for node in graph.node if node.device}


@pytest.mark.parametrize("kind", ["random", "contiguous", "auto"])
def test_losses_and_weights_are_those_of_the_plain_step(plain: Trained, kind: str) -> None:
    net = make_net()
    before = net.weights
    program = captured(net)
    with PlacedStep(program, spread(program, kind)) as step:
        assert [float(step(net.x, net.y)) for _ in range(STEPS)] == plain.losses
        assert len(devices_of(step)) > 1
        assert all(map(np.array_equal, net.weights, before))  # its variables are its own until the end
    assert all(map(np.array_equal, net.weights, plain.weights))


def test_on_one_device_it_is_the_tf_function(plain: Trained) -> None:
    net, same = make_net(), make_net()
    program = captured(net)
    function = tf.function(same.step)  # with whatever TensorFlow fuses
    with PlacedStep(program, spread(program, "single")) as step:
        placed = [float(step(net.x, net.y)) for _ in range(STEPS)]
    assert placed == [float(function(same.x, same.y)) for _ in range(STEPS)]
    assert placed == pytest.approx(plain.losses, rel=1e-4)
    assert all(map(np.array_equal, net.weights, same.weights))


def test_the_users_variables_move_and_come_back(plain: Trained) -> None:
    net = make_net()
    program = captured(net)
    step = PlacedStep(program, spread(program, "random"), own=False)
    assert [float(step(net.x, net.y)) for _ in range(STEPS)] == plain.losses
    homes = {v.value.device[-5:] for v in net.model.variables}
    assert len(homes) > 1
    assert all(map(np.array_equal, net.weights, plain.weights))
    step.close()
    assert {v.value.device[-5:] for v in net.model.variables} == {"CPU:0"}
    assert all(map(np.array_equal, net.weights, plain.weights))
    with pytest.raises(BaechiError, match="B606"):
        step(net.x, net.y)


def test_writes_and_reads_keep_their_order() -> None:
    first, second = tf.Variable(1.0), tf.Variable(10.0)

    def step(x: Any) -> tuple[Any, Any]:
        before = first.read_value()
        first.assign(x * 2.0)
        middle = first.read_value() + second
        second.assign_add(first)
        first.assign_add(100.0)
        return before, middle

    program = capture(step, (tf.constant(3.0),))
    with PlacedStep(program, spread(program, "random", devices=3)) as placed:
        assert [float(v) for v in placed(tf.constant(3.0))] == [1.0, 16.0]
        assert [float(v) for v in placed(tf.constant(5.0))] == [106.0, 26.0]
    assert (first.numpy(), second.numpy()) == (110.0, 26.0)


def test_a_loop_is_one_op_on_one_device() -> None:
    def step(x: Any) -> Any:
        start = (tf.constant(0), tf.sin(x))
        return tf.while_loop(lambda i, _: i < 4, lambda i, y: (i + 1, tf.matmul(y, y) * 0.5), start)[1]

    x = tf.random.stateless_normal((3, 3), (0, 0))
    program = capture(step, (x,))
    with PlacedStep(program, spread(program, "contiguous", devices=2)) as placed:
        result = placed(x)
    wanted = tf.sin(x)
    for _ in range(4):
        wanted = tf.matmul(wanted, wanted) * 0.5
    assert np.array_equal(result, wanted)


def test_an_op_that_tensorflow_moves_is_an_error() -> None:
    weight = tf.Variable([1.0, 2.0])
    program = capture(lambda x: weight.assign_sub(x), (tf.ones(2),))
    (update,) = [op.name for op in program.graph.ops if op.kind == "assign"]
    device = {op.name: "cpu:1" if op.name == update else "cpu:0" for op in program.graph.ops}
    with pytest.raises(BaechiError) as raised:
        PlacedStep(program, plan_in_program_order(program.graph, device))(tf.ones(2))
    assert raised.value.code == "B621"
    assert f"TensorFlow ran op '{update}' on cpu:0, it was placed on cpu:1" in raised.value.what


def test_a_plan_for_another_graph() -> None:
    program = capture(lambda x: x + 1.0, (tf.ones(2),))
    plan = replace(spread(program, "single"), graph="0" * 16)
    with pytest.raises(BaechiError, match="B603"):
        PlacedStep(program, plan)


@pytest.mark.parametrize(
    ("argument", "code"), [(np.ones(3, np.float32), "B608"), ("two", "B608"), ((np.ones(2), np.ones(2)), "B713")]
)
def test_arguments_unlike_the_captured_ones(argument: Any, code: str) -> None:
    program = capture(lambda x: x + 1.0, (tf.ones(2),))
    with pytest.raises(BaechiError, match=code):
        PlacedStep(program, spread(program, "single"))(argument)


def test_more_devices_than_tensorflow_began_with() -> None:
    program = capture(lambda x: x + 1.0, (tf.ones(2),))
    device = {op.name: f"cpu:{i}" for i, op in enumerate(program.graph.ops)}
    plan = plan_in_program_order(program.graph, device)
    many = tuple(replace(plan.cluster.devices[0], name=f"cpu:{i}") for i in range(99))
    plan = replace(plan, cluster=replace(plan.cluster, devices=many))
    with pytest.raises(BaechiError, match="B620"):
        PlacedStep(program, plan)


def test_an_op_that_fails() -> None:
    program = capture(lambda x: tf.debugging.check_numerics(x, "not finite"), (tf.ones(2),))
    with pytest.raises(BaechiError, match=r"B601.*not finite.*CheckNumerics"):
        PlacedStep(program, spread(program, "single"))(tf.constant([1.0, np.nan]))
