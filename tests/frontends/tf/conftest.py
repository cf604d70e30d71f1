"""Small steps, and a way to run what was captured by TensorFlow's public API alone."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from baechi.frontends.tf import TensorFlowProgram


def replayed(program: TensorFlowProgram) -> Callable[..., Any]:
    """The captured graph as a function; it trains the user's own variables."""
    read = [i for i, name in enumerate(program.inputs) if name is not None]

    def body(*given: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        mapped = {f"{program.inputs[i]}:0": x for i, x in zip(read, given, strict=True)}
        mapped |= {f"{name}:0": graph.capture(held) for name, held in program.captures.items()}
        results = [r for r in program.outputs if r is not None]
        wanted = [*results, *program.control_outputs]
        found = tf.graph_util.import_graph_def(
            program.graph_def, input_map=mapped, return_elements=wanted, name="captured"
        )
        with tf.control_dependencies(found[len(results) :]):
            return [tf.identity(t) for t in found[: len(results)]]

    run = tf.function(body, input_signature=[program.specs[i] for i in read], autograph=False)

    def call(*args: Any) -> Any:
        leaves = program.flatten(args)
        return program.rebuild(run(*(tf.convert_to_tensor(leaves[i]) for i in read)))

    return call


@pytest.fixture
def replay() -> Callable[[TensorFlowProgram], Callable[..., Any]]:
    return replayed


@pytest.fixture
def same_training() -> Callable[..., None]:
    """Checks that the captured graph gives, bit by bit, the losses and variables of the step itself."""

    def check(program: TensorFlowProgram, step: Callable[..., Any], args: tuple[Any, ...], steps: int = 3) -> None:
        variables = list(program.trained.values())
        before = [v.numpy() for v in variables]
        plain = [tf.nest.map_structure(np.asarray, step(*args)) for _ in range(steps)]
        wanted = [v.numpy() for v in variables]
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        captured = replayed(program)
        found = [tf.nest.map_structure(np.asarray, captured(*args)) for _ in range(steps)]
        tf.nest.map_structure(np.testing.assert_array_equal, found, plain)
        for variable, value in zip(variables, wanted, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)

    return check


class Trainer:
    """A small network with dropout and batch normalisation, and the step that trains it."""

    def __init__(self, optimizer: str = "adam") -> None:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        self.model = keras.Sequential(
            [
                keras.layers.Input((8,)),
                keras.layers.Dense(16, activation="relu", name="first"),
                keras.layers.Dropout(0.5, name="dropout"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dense(4, name="second"),
            ],
            name="net",
        )
        self.optimizer = keras.optimizers.get(optimizer)
        self.optimizer.build(self.model.trainable_variables)
        self.args = (
            np.random.default_rng(0).standard_normal((6, 8), dtype=np.float32),
            np.array([0, 1, 2, 3, 0, 1], np.int32),
        )

    def step(self, x: Any, y: Any) -> Any:
        weights = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = self.model(x, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            loss = tf.reduce_mean(losses)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), self.model.trainable_variables, strict=True))
        return loss


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def make_trainer() -> type[Trainer]:
    return Trainer
