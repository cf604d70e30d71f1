"""What a captured TensorFlow step is, against TensorFlow's own graph, and that it trains as the step does."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from baechi.frontends.tf import capture, capture_keras, train_step


@pytest.fixture
def program(trainer):
    return capture(trainer.step, trainer.args, name="net")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_the_captured_graph_trains_bit_by_bit_as_the_step_does(make_trainer, same_training, optimizer):
    trainer = make_trainer(optimizer)
    program = capture(tf.function(trainer.step), trainer.args)
    same_training(program, tf.function(trainer.step), trainer.args)


def test_every_node_belongs_to_exactly_one_op(program):
    owned = Counter(node for nodes in program.nodes.values() for node in nodes)
    assert owned == Counter(node.name for node in program.graph_def.node)
    assert set(program.nodes) == set(program.graph.op)
    assert set(program.tensors.values()) <= {f"{node.name}:{i}" for node in program.graph_def.node for i in range(20)}


def test_a_variable_holds_its_bytes_once(program, trainer):
    held = {op.name: op.persistent_bytes for op in program.graph.ops if op.kind in ("parameter", "buffer")}
    trainable = sum(4 * keras.ops.size(v) for v in trainer.model.trainable_variables)
    assert sum(op.persistent_bytes for op in program.graph.ops if op.kind == "parameter") == int(trainable)
    variables = [*trainer.model.variables, *trainer.optimizer.variables]
    assert sum(held.values()) == sum(v.value.dtype.size * v.value.shape.num_elements() for v in variables)
    assert held["net/first/kernel"] == 4 * 8 * 16
    assert held["adam/net_first_kernel_momentum"] == 4 * 8 * 16


def test_what_touches_one_handle_shares_a_device(program):
    """The truth: who reads a resource placeholder in the graph that will be run."""
    readers: dict[str, set[str]] = {name: set() for name in program.variables}
    for node in program.graph_def.node:
        for reference in node.input:
            if reference in readers:
                readers[reference].add(program.op_of[node.name])
    for placeholder, ops in readers.items():
        variable = program.variables[placeholder]
        groups = {program.graph.group_of(program.graph.op[name]) for name in (*ops, variable)}
        assert len(groups) == 1, variable


def test_slots_sit_with_their_parameter_and_parameters_apart(program):
    group = {op.name: op.group for op in program.graph.ops}
    assert group["net/first/kernel"] == "v:net/first/kernel"
    assert group["adam/net_first_kernel_momentum"] == group["net/first/kernel"]
    assert group["net/second/kernel"] == "v:net/second/kernel"
    assert group["adam/learning_rate"] is None


def test_phases(program):
    phase = {op.name: op.phase for op in program.graph.ops}
    by_kind = Counter((op.kind, op.phase) for op in program.graph.ops)
    assert by_kind["MatMul", "forward"] == 2
    assert by_kind["MatMul", "backward"] == 3  # the first layer's input has no gradient
    assert by_kind["update", "update"] == len([o for o in program.graph.ops if o.kind == "parameter"])
    assert all(phase[op.name] == "update" for op in program.graph.ops if op.name.startswith("adam/") and op.inputs)
    moving = [op for op in program.graph.ops if op.kind == "assign" and op.phase == "forward"]
    assert [op.module for op in moving] == ["net.dropout", "net.norm", "net.norm"]


def test_backward_ops_have_twins_of_their_layer(program):
    backward = [op for op in program.graph.ops if op.phase == "backward"]
    assert all(op.forward is not None and program.graph.op[op.forward].phase == "forward" for op in backward)
    for op in backward:
        for layer in ("first", "second", "norm"):
            if f"/{layer}/" in op.name or f"/{layer}_1/" in op.name:
                assert op.module == f"net.{layer}"
    relu = next(op for op in backward if op.kind == "ReluGrad")
    assert program.graph.op[relu.forward].kind == "Relu"


def test_sizes_are_those_of_the_traced_tensors(program):
    """The truth: shapes of a second, plain import of the graph."""
    traced = program.owner[0][1].graph
    checked = 0
    for name, reference in program.tensors.items():
        node, _, index = reference.partition(":")
        if node not in {op.name for op in traced.get_operations()}:
            continue
        tensor = traced.get_tensor_by_name(f"{node}:{index}")
        found = program.graph.tensor[name]
        assert found.shape == tuple(tensor.shape)
        assert found.nbytes == tensor.dtype.size * tensor.shape.num_elements()
        checked += 1
    assert checked > 100


def test_reads_of_a_variable_are_views_of_it(program):
    reads = [op for op in program.graph.ops if op.kind == "ReadVariableOp"]
    assert reads
    for op in reads:
        assert op.outputs[0].alias_of == op.inputs[0]
        assert program.graph.producer[op.inputs[0]].kind == "buffer"  # Adam reads its moments after it wrote them
        assert op.after


def test_gradients_are_not_joined(program):
    """Keras leads all gradients through one IdentityN: after it, each would wait for all."""
    assert not any(node.op == "IdentityN" for node in program.graph_def.node)
    ancestors = _ancestors(program, "net/second/kernel")
    assert not any("net/first" in op and program.graph.op[op].phase == "backward" for op in ancestors)


def _ancestors(program, parameter):
    update = next(op for op in program.graph.ops if op.kind == "update" and parameter in op.inputs)
    found, stack = set(), [update.name]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            op = program.graph.op[name]
            stack += [program.graph.producer[t].name for t in op.inputs] + list(op.after)
    return found


def test_the_loss_does_not_wait_for_the_updates(program):
    assert program.loss == 0
    node = program.outputs[0].partition(":")[0]
    waits = {node.name: node.input for node in program.graph_def.node}
    assert not any(reference.startswith("^") for reference in waits[node])


def test_equal_steps_are_equal_graphs(make_trainer):
    first, second = (capture(t.step, t.args) for t in (make_trainer(), make_trainer()))
    assert first.graph.digest == second.graph.digest


def test_calls_are_inlined(same_training):
    state = tf.Variable([1.0, 2.0, 3.0])

    @tf.function
    def scale(x):
        state.assign_add(x)
        return x * state, tf.reduce_sum(x)

    @tf.function
    def twice(x):
        y, total = scale(x)
        return scale(y)[0], total

    @tf.function
    def step(x):
        y, total = twice(x)
        state.assign_sub(0.5 * y)
        return {"loss": total, "y": y, "none": None}

    args = (np.array([1.0, 2.0, 3.0], np.float32),)
    program = capture(step, args)
    assert not any("PartitionedCall" in node.op for node in program.graph_def.node)
    assert not program.graph_def.library.function
    assert program.fixed == {1: None}
    same_training(program, step, args)


def test_constants_stand_beside_their_readers(program):
    assert not any(op.kind == "constant" for op in program.graph.ops)
    readers = Counter(r.partition(":")[0] for node in program.graph_def.node for r in node.input)
    constants = [node.name for node in program.graph_def.node if node.op == "Const"]
    assert constants
    assert all(readers[name] <= 2 for name in constants)  # one op may read one twice
    op_of = program.op_of
    for node in program.graph_def.node:
        for reference in node.input:
            source = reference.removeprefix("^").partition(":")[0]
            if source in constants:
                assert op_of[source] == op_of[node.name]


def test_a_large_constant_is_an_op(same_training):
    table = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    weight = tf.Variable(tf.zeros((4, 64)))

    def step(x):
        weight.assign_add(tf.matmul(x, tf.constant(table)))
        return tf.reduce_sum(weight)

    args = (np.ones((4, 64), np.float32),)
    program = capture(step, args)
    constants = [op for op in program.graph.ops if op.kind == "constant"]
    assert [op.persistent_bytes for op in constants] == [table.nbytes]
    same_training(program, tf.function(step), args)


def test_captured_tensors_and_plain_arguments(same_training):
    offset = tf.constant([10.0, 20.0])
    weight = tf.Variable([1.0, 2.0])

    def step(batch, *, scale, unused=None):
        weight.assign_sub(scale * batch["x"] + offset)
        return tf.reduce_sum(weight)

    batch = {"x": np.array([1.0, 2.0], np.float32), "y": np.zeros(3, np.float32)}
    program = capture(step, (batch,), {"scale": 0.5})
    assert program.given == {2: 0.5}
    assert program.inputs[1] is None  # y is not read
    assert [type(v).__name__ for v in program.captures.values()].count("EagerTensor") == 2
    leaves = program.flatten((batch,), {"scale": 0.5})
    assert len(leaves) == 3


def test_a_device_of_the_user_is_taken_out():
    weight = tf.Variable([1.0])

    def step(x):
        with tf.device("/device:CPU:0"):
            return weight.assign_sub(x)

    assert all(node.device == "" for node in capture(step, (np.ones(1, np.float32),)).graph_def.node)


def test_a_compiled_keras_model(same_training):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(8, name="dense"), keras.layers.Dropout(0.3)], name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    x, y = np.ones((4, 5), np.float32), np.array([0, 1, 2, 3])
    program = capture_keras(model, x, y)
    assert sum(op.outputs[0].nbytes for op in program.graph.ops if op.kind == "parameter") == 4 * model.count_params()
    assert list(program.results) == ["loss", "accuracy"]
    assert sorted(program.results)[program.loss] == "loss"
    same_training(program, train_step(model, x, y), (x, y))


def test_weights_of_samples(same_training):
    keras.utils.clear_session(free_memory=False)
    model = keras.Sequential([keras.layers.Dense(1, name="dense")], name="net")
    model.compile("sgd", "mse")
    x, y, weight = np.ones((4, 5), np.float32), np.ones((4, 1), np.float32), np.arange(4, dtype=np.float32)
    program = capture_keras(model, x, y, weight)
    assert len([name for name in program.inputs if name is not None]) == 3
    same_training(program, train_step(model, x, y, weight), (x, y, weight))


def test_a_random_op_draws():
    weight = tf.Variable([0.0, 0.0])
    program = capture(lambda: weight.assign_add(tf.random.normal([2])), ())
    assert [op.kind for op in program.graph.ops if op.draws] == ["RandomStandardNormal"]


def test_source_lines_are_the_users(program):
    lines = {op.source.partition(":")[0] for op in program.graph.ops if op.source}
    assert lines == {"tests/frontends/tf/conftest.py"}
