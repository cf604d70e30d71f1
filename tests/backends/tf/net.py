"""A small step with dropout and batch normalisation, and placements of it."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from baechi.api import place_graph
from baechi.backends.plans import plan_in_program_order
from baechi.config import parse_cluster
from baechi.frontends.tf import TensorFlowProgram
from baechi.ir.plan import Plan

STEPS = 5


@dataclass
class Net:
    """A model, its optimiser and its training step, which is no `tf.function` yet."""

    model: Any
    optimizer: Any
    step: Callable[..., Any]
    x: Any
    y: Any

    @property
    def weights(self) -> list[Any]:
        return [v.numpy() for v in (*self.model.variables, *self.optimizer.variables)]


def make_net() -> Net:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dropout(0.5), keras.layers.Dense(4)])
    model.build((8, 10))
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    x = tf.random.stateless_normal((8, 10), (1, 2))
    return Net(model, optimizer, step, x, tf.random.stateless_normal((8, 4), (3, 4)))


@contextmanager
def as_written() -> Iterator[None]:
    """Within, TensorFlow does not fuse ops: on several devices a placed step cannot have that either."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@dataclass(frozen=True)
class Trained:
    losses: list[float]
    weights: list[Any]


def spread(program: TensorFlowProgram, kind: str, devices: int = 4) -> Plan:
    """A placement of a program's groups: single, random, contiguous, or by the portfolio."""
    if kind == "auto":
        cluster = parse_cluster(f"{devices}x70%")
        from baechi.api import resolve

        return place_graph(program.graph, resolve(program.graph, cluster), "auto", options={"budget": 0.2})
    ops = [program.graph.ops[i] for i in program.graph.order]
    numbers, of_group = random.Random(7), {}
    device = {}
    for i, op in enumerate(ops):
        k = {"single": 0, "random": numbers.randrange(devices), "contiguous": i * devices // len(ops)}[kind]
        device[op.name] = of_group.setdefault(op.group, f"cpu:{k}") if op.group else f"cpu:{k}"
    return plan_in_program_order(program.graph, device)
