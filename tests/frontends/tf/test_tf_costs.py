"""Costs of TensorFlow ops against closed forms, and of loops and branches against their bodies."""

import numpy as np
import pytest
import tensorflow as tf

from baechi.frontends.tf import capture

SPEC = tf.TensorSpec


def ops_of(step, *specs, **kwargs):
    program = capture(step, specs, kwargs)
    return {op.kind: op for op in program.graph.ops}


@pytest.mark.parametrize(
    ("step", "shapes", "kind", "flops"),
    [
        (lambda a, b: tf.matmul(a, b), ((3, 5), (5, 7)), "MatMul", 2 * 3 * 5 * 7),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), ((5, 3), (5, 7)), "MatMul", 2 * 3 * 5 * 7),
        (lambda a, b: tf.matmul(a, b, transpose_b=True), ((3, 5), (7, 5)), "MatMul", 2 * 3 * 5 * 7),
        (lambda a, b: tf.matmul(a, b), ((4, 3, 5), (4, 5, 7)), "BatchMatMulV2", 2 * 4 * 3 * 5 * 7),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), ((4, 5, 3), (4, 5, 7)), "BatchMatMulV2", 2 * 4 * 3 * 5 * 7),
        (lambda x, w: tf.nn.conv2d(x, w, 2, "SAME"), ((2, 8, 8, 3), (3, 3, 3, 6)), "Conv2D", 2 * 2 * 4 * 4 * 6 * 27),
        (
            lambda x, w: tf.nn.depthwise_conv2d(x, w, (1, 1, 1, 1), "VALID"),
            ((2, 8, 8, 3), (3, 3, 3, 2)),
            "DepthwiseConv2dNative",
            2 * 2 * 6 * 6 * 6 * 9,
        ),
        (lambda a, b: tf.raw_ops.Einsum(inputs=[a, b], equation="bij,bjk->bik"), ((4, 3, 5), (4, 5, 7)), "Einsum", 840),
        (lambda a: tf.nn.relu(a), ((3, 5),), "Relu", 15),
        (lambda a: tf.reduce_sum(a, 0), ((3, 5),), "Sum", 15),
        (lambda a: tf.transpose(a), ((3, 5),), "Transpose", 0),
        (lambda a: tf.reshape(a, [5, 3]) + 1.0, ((3, 5),), "Reshape", 0),
    ],
)
def test_flops_are_the_closed_form(step, shapes, kind, flops):
    assert ops_of(step, *(SPEC(s) for s in shapes))[kind].flops == flops


def test_gradients_of_a_convolution_cost_what_it_does():
    def step(x, w):
        with tf.GradientTape() as tape:
            tape.watch((x, w))
            y = tf.reduce_sum(tf.nn.conv2d(x, w, 2, "SAME") ** 2)
        return tape.gradient(y, (x, w))

    ops = ops_of(step, SPEC((2, 8, 8, 3)), SPEC((3, 3, 3, 6)))
    assert ops["Conv2D"].flops == ops["Conv2DBackpropInput"].flops == ops["Conv2DBackpropFilter"].flops > 0


def test_moved_bytes():
    ops = ops_of(lambda a, b: tf.tanh(a) + b, SPEC((4, 5)), SPEC((5,)))
    assert ops["Tanh"].moved_bytes == 4 * (20 + 20)
    assert ops["AddV2"].moved_bytes == 4 * (20 + 5 + 20)


def test_a_lookup_moves_what_it_picks_not_the_table():
    table = tf.Variable(tf.zeros((1000, 8)))
    ops = ops_of(lambda ids: tf.gather(table, ids) * 2.0, SPEC((3,), tf.int32))
    assert ops["ResourceGather"].moved_bytes == 2 * 4 * 3 * 8 + 4 * 3


def test_an_update_reads_and_writes_its_variable():
    weight = tf.Variable(tf.zeros((5,)))
    ops = ops_of(lambda x: weight.assign_add(x), SPEC((5,)))
    assert ops["assign"].moved_bytes == 3 * 4 * 5


def test_a_view_costs_nothing_and_has_no_memory():
    program = capture(lambda a: tf.reshape(tf.tanh(a), [15]) * 2.0, (SPEC((3, 5)),))
    view = next(op for op in program.graph.ops if op.kind == "Reshape")
    assert (view.flops, view.moved_bytes, view.outputs[0].alias_of) == (0, 0, view.inputs[0])


def test_keys_tell_calls_apart_and_nothing_else():
    def keys(step, *specs):
        return [op.key for op in capture(step, specs).graph.ops if op.kind == "MatMul"]

    first = keys(lambda a, b: tf.matmul(tf.tanh(a), b), SPEC((3, 5)), SPEC((5, 7)))
    other_names = keys(lambda c, d: tf.matmul(c, d), SPEC((3, 5)), SPEC((5, 7)))
    transposed = keys(lambda a, b: tf.matmul(a, b, transpose_b=True), SPEC((3, 5)), SPEC((7, 5)))
    assert first == other_names == ["tf.MatMul(f32[3,5],f32[5,7])"]
    assert transposed == ["tf.MatMul(f32[3,5],f32[7,5],transpose_b=1)"]


def test_the_axis_of_a_reduction_is_in_its_key():
    (one,) = (op.key for op in capture(lambda a: tf.reduce_sum(a, 0), (SPEC((4, 4)),)).graph.ops if op.kind == "Sum")
    (other,) = (op.key for op in capture(lambda a: tf.reduce_sum(a, 1), (SPEC((4, 4)),)).graph.ops if op.kind == "Sum")
    assert one != other


def test_arithmetic_is_the_type_that_is_computed_in():
    ops = ops_of(lambda a, b: tf.matmul(a, b), SPEC((3, 5), tf.float64), SPEC((5, 7), tf.float64))
    assert ops["MatMul"].arithmetic == "float64"


def squared(x, turns):
    for _ in tf.range(turns):
        x = tf.matmul(x, x)
    return x


@pytest.mark.parametrize("turns", [1, 7])
def test_a_loop_costs_its_body_as_often_as_it_runs(turns, same_training):
    program = capture(squared, (SPEC((4, 4)), turns))
    (loop,) = (op for op in program.graph.ops if "While" in op.kind)
    assert turns * 2 * 4**3 <= loop.flops <= turns * (2 * 4**3 + 8)
    args = (np.eye(4, dtype=np.float32) * 2, turns)
    same_training(program, tf.function(squared), args)


def test_a_loop_with_a_limit_and_one_that_depends_on_data():
    def limited(x):
        return tf.while_loop(lambda i, x: i < 6, lambda i, x: (i + 2, tf.matmul(x, x)), (0, x))[1]

    def open_ended(x):
        return tf.while_loop(lambda x: tf.reduce_sum(x) < 100.0, lambda x: (tf.matmul(x, x) + 1.0,), (x,))[0]

    found = [
        next(op for op in capture(f, (SPEC((4, 4)),)).graph.ops if "While" in op.kind) for f in (limited, open_ended)
    ]
    assert 3 * 128 <= found[0].flops < 4 * 128
    assert 128 <= found[1].flops < 2 * 128  # once: how often is not known


def test_the_gradient_of_a_loop_costs_at_least_twice_the_loop_which_keeps_its_values():
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(squared(x, 5))
        return tape.gradient(loss, x)

    ops = {op.name: op for op in capture(step, (SPEC((4, 4)),)).graph.ops if "While" in op.kind}
    forward = next(op for op in ops.values() if op.phase == "forward")
    backward = next(op for op in ops.values() if op.phase == "backward")
    assert backward.forward == forward.name
    assert backward.flops >= 2 * forward.flops
    assert sum(t.nbytes for t in forward.outputs if t.dtype == "variant") == 5 * 4 * 4 * 4


def test_a_branch_costs_the_dearer_side_and_sits_with_what_it_touches(same_training):
    state = tf.Variable([1.0, 2.0])

    def step(x):
        if tf.reduce_sum(x) > 0:
            state.assign_add(x)
        return x * 2.0

    program = capture(step, (SPEC((2,)),))
    (branch,) = (op for op in program.graph.ops if op.key.startswith("tf.If("))
    assert branch.group == "v:Variable"
    assert branch.flops == 2
    same_training(program, tf.function(step), (np.array([1.0, 2.0], np.float32),))


def test_a_recurrent_layer_that_stays_a_loop(same_training):
    layer = tf.keras.layers.LSTM(4, name="lstm")
    layer.build((2, 6, 3))
    weights = [v.value for v in layer.trainable_variables]

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(x) ** 2)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(gradient)
        return loss

    args = (np.random.default_rng(0).standard_normal((2, 6, 3), dtype=np.float32),)
    program = capture(step, args)
    loop = next(op for op in program.graph.ops if "While" in op.kind and op.phase == "forward")
    assert loop.flops >= 6 * 2 * 2 * 4 * (3 + 4) * 4  # turns x 2 x batch x (inputs + units) x four gates
    same_training(program, tf.function(step), args)


def test_constraints_of_the_graph_are_groups():
    def step(x):
        one, other = tf.tanh(x), tf.sigmoid(x)
        other.op._set_attr("_class", tf.compat.v1.AttrValue(list={"s": [b"loc:@" + one.op.name.encode()]}))
        return one + other

    group = {op.kind: op.group for op in capture(step, (SPEC((2,)),)).graph.ops}
    assert group["Tanh"] == group["Sigmoid"] is not None
    assert group["AddV2"] is None
