"""Steps that cannot be placed: one clear error each."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from baechi.errors import BaechiError
from baechi.frontends.tf import capture, capture_keras

X = np.ones(2, np.float32)
weight = tf.Variable([1.0, 2.0])
history: list[int] = []
count = 0


def appends(x):
    history.append(1)
    return weight.assign_sub(x)


def counts(x):
    global count
    count += 1
    return weight.assign_sub(x)


def calls_python(x):
    return weight.assign_sub(tf.py_function(lambda a: a, [x], tf.float32))


def calls_numpy(x):
    return weight.assign_sub(tf.numpy_function(lambda a: a, [x], tf.float32))


def creates(x):
    return tf.Variable(x) * 2.0


def creates_a_constant(x):
    return tf.Variable([1.0, 2.0]) * x


def looks(x):
    return float(x.numpy().sum())


def iterates(x):
    return [float(element) for element in x]


def picks(x):
    return tf.reduce_sum(tf.boolean_mask(x, x > 0))


def breaks(x):
    return tf.matmul(x, x)


class Watched:
    def __init__(self):
        self.steps = 0

    def step(self, x):
        self.steps += 1
        return weight.assign_sub(x)


@pytest.mark.parametrize(
    ("step", "code", "says"),
    [
        (appends, "B715", "'history'"),
        (counts, "B715", "'count'"),
        (Watched().step, "B715", "'self.steps'"),
        (calls_python, "B715", "EagerPyFunc"),
        (calls_numpy, "B715", "PyFunc"),
        (creates, "B712", "creates a tf.Variable"),
        (creates_a_constant, "B712", "creates a tf.Variable"),
        (looks, "B711", "test_tf_errors.py"),
        (iterates, "B711", "only eagerly"),
        (picks, "B714", "Where"),
        (breaks, "B710", "MatMul"),
        (lambda x, y: x + y, "B710", "missing"),
    ],
)
@pytest.mark.parametrize("decorated", [False, True])
def test_a_step_that_cannot_be_placed(step, code, says, decorated):
    with pytest.raises(BaechiError) as caught:
        capture(tf.function(step) if decorated else step, (X,))
    assert caught.value.code == code
    assert says in caught.value.what
    assert caught.value.help
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        (tf.TensorSpec((None, 2)), "B714"),
        (tf.TensorSpec(None), "B714"),
        (tf.ragged.constant([[1], [1, 2]]), "B713"),
        (tf.sparse.eye(3), "B713"),
    ],
)
def test_an_argument_that_cannot_be_placed(argument, code):
    with pytest.raises(BaechiError) as caught:
        capture(lambda x: x, (argument,))
    assert caught.value.code == code


def test_an_iterator_in_the_step():
    data = iter(tf.data.Dataset.range(3))
    with pytest.raises(BaechiError) as caught:
        capture(lambda: next(data), ())
    assert caught.value.code == "B716"
    assert "IteratorGetNext" in caught.value.what


def test_a_call_with_other_arguments_than_captured():
    program = capture(lambda batch, scale: batch["x"] * scale, ({"x": X}, 2.0))
    assert program.flatten(({"x": X}, 2.0))[1] == 2.0
    for args in (({"x": X}, 3.0), ({"y": X}, 2.0), ({"x": X},)):
        with pytest.raises(BaechiError) as caught:
            program.flatten(args)
        assert caught.value.code == "B713"


def test_keras_models_without_a_training_graph():
    with pytest.raises(BaechiError) as caught:
        capture_keras(keras.layers.Dense(1), X)
    assert caught.value.code == "B717"
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(BaechiError, match="not compiled") as caught:
        capture_keras(model, X)
    assert caught.value.code == "B717"
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(BaechiError, match="eagerly") as caught:
        capture_keras(model, X)
    assert caught.value.code == "B711"


class Peeking(keras.layers.Layer):
    def call(self, x):
        return x * float(tf.reduce_max(x))


def test_a_layer_that_runs_only_eagerly():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    peeking = Peeking()
    with pytest.raises(BaechiError) as caught:
        capture(lambda x: peeking(model(x)), (np.ones((2, 3), np.float32),))
    assert caught.value.code == "B711"


def test_what_is_no_side_effect():
    cache = {"scale": 2.0}

    def step(x, scale):
        inner = []
        inner.append(x)
        return weight.assign_sub(inner[0] * cache["scale"] * scale)

    assert len(capture(functools.partial(step, scale=1.0), (X,)).graph)


class Lazy:
    def __init__(self):
        self.ready, self.weight = False, None

    def step(self, x):
        if not self.ready:
            self.ready, self.weight = True, tf.Variable([1.0, 2.0])
        return self.weight.assign_sub(x)


def test_a_step_may_make_its_variables_at_its_first_call():
    lazy = Lazy()
    program = capture(lazy.step, (X,))
    assert [op.name for op in program.graph.ops if op.kind in ("parameter", "buffer")] == ["Variable"]
    assert lazy.weight.numpy().tolist() == [1.0, 2.0]
