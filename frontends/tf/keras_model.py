"""Capture what `keras.Model.fit` does with one batch."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from baechi.errors import BaechiError
from baechi.frontends.tf.extract import capture_traced
from baechi.frontends.tf.naming import Scopes
from baechi.frontends.tf.program import TensorFlowProgram
from baechi.frontends.tf.trace import spec_of, trace, unhurried_collector

__all__ = ["capture_keras", "train_step"]


def capture_keras(model: Any, x: Any, y: Any = None, sample_weight: Any = None, *, name: str = "") -> TensorFlowProgram:
    """Capture the training step of a compiled Keras model, metrics and all.

    The program takes what was given of ``(x, y, sample_weight)`` and returns the model's logs; its ``loss``
    is Keras's: the mean over the steps since the metrics were reset.

    Args:
        model: compiled; it is built if it was not.
        x, y, sample_weight: one example batch, as arrays, tensors or structures of them.
        name: of the graph; the model's own otherwise.

    Raises:
        BaechiError: B711 on a model that runs eagerly, B717 on one that is not compiled, and B7xx as `capture`.

    Example:
        >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="dense")], name="net")
        >>> model.compile("sgd", "mse")
        >>> program = capture_keras(model, tf.ones((4, 3)), tf.ones((4, 2)))
        >>> [op.name for op in program.graph.ops if op.kind == "parameter"]
        ['net/dense/kernel', 'net/dense/bias']
    """
    step = train_step(model, x, y, sample_weight)
    given = tuple(v for v in (x, y, sample_weight) if v is not None)
    owners = (model, model.optimizer)
    scopes = Scopes()
    with unhurried_collector():
        with scopes.recorded(owners):
            traced = trace(step, given, {})
        logs = traced.results if isinstance(traced.results, dict) else {}
        loss = sorted(logs).index("loss") if "loss" in logs else None
        return capture_traced(traced, name or model.name, owners, scopes, loss)


def train_step(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Callable[..., Any]:
    """What `fit` does with one batch, as a `tf.function` of what is given of ``(x, y, sample_weight)``.

    Raises:
        BaechiError: B711 on a model that runs eagerly, B717 on one that is not compiled.
    """
    if not isinstance(model, keras.Model):
        raise BaechiError(
            "B717", f"{type(model).__name__} is no Keras model", help="give a keras.Model, or a tf.function"
        )
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise BaechiError(
            "B717",
            f"model '{model.name}' is not compiled, so there is no training step",
            help="call model.compile(optimizer, loss) first",
        )
    if model.run_eagerly:
        raise BaechiError(
            "B711", f"model '{model.name}' runs eagerly, so it has no graph", help="compile it with run_eagerly=False"
        )
    _build(model, x, y, sample_weight)
    weighted = sample_weight is not None

    def step(*batch: Any) -> Any:
        rest = list(batch)
        weight = rest.pop() if weighted else None
        return model.train_step(keras.utils.pack_x_y_sample_weight(rest[0], *rest[1:], sample_weight=weight))

    made: Callable[..., Any] = tf.function(step, autograph=False)
    return made


def _build(model: Any, x: Any, y: Any, sample_weight: Any) -> None:
    """As `fit` does before its first step: weights, metrics and slots exist before the step is traced."""
    batch = tf.nest.map_structure(_symbol, (x, y, sample_weight))
    if hasattr(model, "_symbolic_build"):
        model._symbolic_build(data_batch=batch)
    model.optimizer.build(model.trainable_variables)


def _symbol(leaf: Any) -> Any:
    spec = spec_of(leaf, 0) if leaf is not None else None
    return keras.KerasTensor(spec.shape, spec.dtype.name) if isinstance(spec, tf.TensorSpec) else spec
