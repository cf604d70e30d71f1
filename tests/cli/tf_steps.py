"""A person's own TensorFlow code, as the command line finds it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

_w = tf.Variable(tf.random.stateless_normal((6, 3), (1, 2)), name="w")


@tf.function(input_signature=[tf.TensorSpec((5, 6)), tf.TensorSpec((5, 3))])
def step(x: Any, y: Any) -> Any:
    """A step with a signature: the target is the step itself."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((tf.matmul(x, _w) - y) ** 2)
    _w.assign_sub(0.1 * tape.gradient(loss, _w))
    return loss


def pair(batch: int = 5) -> tuple[Any, tuple[Any, ...]]:
    """A step and its arguments."""
    weight = tf.Variable(tf.ones((6, 3)), name="weight")

    @tf.function
    def train(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.matmul(x, weight) ** 2)
        weight.assign_sub(0.1 * tape.gradient(loss, weight))
        return loss

    return train, (tf.ones((batch, 6)),)


def wide() -> tuple[Any, tuple[Any, ...]]:
    """Two layers of 9 MB each."""
    weights = [tf.Variable(tf.ones((1500, 1500)), name=f"wide{i}") for i in range(2)]

    @tf.function
    def train(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.matmul(tf.matmul(x, weights[0]), weights[1]))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(1e-3 * gradient)
        return loss

    return train, (tf.ones((4, 1500)),)


def model() -> dict[str, Any]:
    """A compiled Keras model and a batch."""
    keras.utils.clear_session()  # names are counted
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Input((6,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)]
    net = keras.Sequential(layers)
    net.compile("sgd", "mse")
    numbers = np.random.default_rng(0)
    return {"model": net, "x": numbers.normal(size=(5, 6)).astype("f"), "y": numbers.normal(size=(5, 3)).astype("f")}


def eager() -> tuple[Any, tuple[Any, ...]]:
    """A step that only runs eagerly."""
    return tf.function(lambda x: float(x.numpy().sum())), (tf.ones(2),)


def nothing() -> int:
    """No step at all."""
    return 3
