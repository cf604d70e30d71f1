"""A person's own TensorFlow step or Keras model that runs as planned; the loop around it stays as it is."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import tensorflow as tf

from baechi.backends.reporting import report_of
from baechi.backends.switch import is_disabled
from baechi.backends.tf.devices import ensure_devices
from baechi.backends.tf.placed import PlacedStep
from baechi.errors import BaechiError
from baechi.frontends.tf import TensorFlowProgram, capture, capture_keras
from baechi.ir.plan import Plan

__all__ = [
    "PlacedFunction",
    "Planner",
    "Steps",
    "attach_model",
    "call",
    "call_in_trace",
    "is_model",
    "is_tensor_call",
    "wrap",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

Planner = Callable[[TensorFlowProgram, Plan | None], Plan]
"""From a program, and the plan of an earlier call of another shape, to a plan."""

_as_written: Callable[[_Function], _Function] = tf.autograph.experimental.do_not_convert

_log = logging.getLogger("baechi")
Kind = tuple[str, tuple[object, ...]]


class Steps:
    """What is behind a placed step, as its attribute ``baechi``: a placed step for each kind of arguments.

    A call of a new kind, of other shapes, types or plain values, is captured and planned; the logger
    ``baechi`` says so. Variables stay where the first plan put them, if the others fit so.

    Attributes:
        placed: by the kind of call.
    """

    def __init__(self, name: str, planner: Planner) -> None:
        self._name, self._planner = name, planner
        self._lock = threading.RLock()
        self.placed: dict[Kind, PlacedStep] = {}

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans made so far, one for each kind of call."""
        return tuple(step.plan for step in self.placed.values())

    def report(self, path: str) -> None:
        """Write a page about the plans made so far, as ``baechi report`` does for files; errors as `report_of`."""
        report_of(self._planner, [(step.program.graph, step.plan) for step in self.placed.values()], path)

    def find(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], make: Callable[[], TensorFlowProgram]
    ) -> PlacedStep:
        """The step for a call; `make` captures it when it is of a new kind."""
        with self._lock:
            kind = _kind(args, kwargs)
            if kind not in self.placed:
                self.placed[kind] = self._place(make)
            return self.placed[kind]

    def _place(self, make: Callable[[], TensorFlowProgram]) -> PlacedStep:
        program = make()
        plan = self._planner(program, next(iter(self.plans), None))
        ensure_devices(len(plan.cluster))
        step = PlacedStep(program, plan, own=False)
        if self.placed:
            _log.warning("baechi: %s is planned anew for other arguments: plan %d", self._name, len(self.placed) + 1)
        else:
            _log.info("baechi: %s is planned", self._name)
        return step

    def close(self) -> None:
        """Move all variables back to where they were, and forget the plans."""
        for step in reversed(self.placed.values()):
            step.close()
        self.placed.clear()


def _kind(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kind:
    structure = (args, dict(kwargs))
    leaves = tuple(_leaf_kind(leaf) for leaf in tf.nest.flatten(structure))
    return repr(tf.nest.map_structure(lambda _: None, structure)), leaves


def _leaf_kind(leaf: Any) -> object:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return tuple(leaf.shape), tf.as_dtype(leaf.dtype).name
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return type(leaf), leaf


class PlacedFunction:
    """A step function that runs as planned; whatever else one asks it, the function itself answers.

    Args:
        function: a `tf.function`, or the Python function of a step.
        planner: makes the plans.
    """

    def __init__(self, function: Callable[..., Any], planner: Planner) -> None:
        functools.update_wrapper(self, getattr(function, "python_function", function), updated=())
        self._function = function
        self.baechi = Steps(getattr(function, "__name__", "step"), planner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Train one step."""
        if is_disabled():
            return self._function(*args, **kwargs)
        if tf.inside_function():
            return call_in_trace(self.baechi, self._function, args, kwargs)
        step = self.baechi.find(args, kwargs, lambda: capture(self._function, args, kwargs))
        return step(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """A method of a class: placed for each instance on its own, by what it refers to."""
        return self if instance is None else functools.partial(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def call_in_trace(steps: Steps, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Within the trace of a `tf.function` around it: the placed step becomes one call in that function's graph."""
    given, named = tf.nest.map_structure(_spec, (args, dict(kwargs)))
    with ThreadPoolExecutor(1) as outside:  # where neither the graph under construction nor its tapes are known
        step = outside.submit(steps.find, given, named, lambda: capture(function, given, named)).result()
        outside.submit(step.prepare).result()
    return step.traced(args, kwargs)


def _spec(leaf: Any) -> Any:
    return tf.TensorSpec(leaf.shape, leaf.dtype) if isinstance(leaf, tf.Tensor) else leaf


@_as_written
def call(function: PlacedFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a placed step, also from a function that AutoGraph rewrites: baechi's own code is none of it."""
    return function(*args, **kwargs)


@_as_written
def is_tensor_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function is called as a TensorFlow step."""
    if tf.inside_function():
        return True
    return any(isinstance(leaf, tf.Tensor | tf.Variable) for leaf in tf.nest.flatten((args, dict(kwargs))))


def wrap(target: Any, planner: Planner) -> PlacedFunction | None:
    """A `tf.function`, placed; None for what is none."""
    is_function = isinstance(target, tf.types.experimental.PolymorphicFunction)
    return PlacedFunction(target, planner) if is_function else None


def is_model(target: Any) -> bool:
    """Whether this is a Keras model that trains with TensorFlow."""
    return isinstance(target, keras.Model) and keras.backend.backend() == "tensorflow"


def attach_model(model: Any, planner: Planner) -> Any:
    """Let ``fit`` and ``train_on_batch`` of a Keras model train as planned; returns the model.

    Raises:
        BaechiError: B716 on a model of a `tf.distribute` strategy.
    """
    if model.distribute_strategy.num_replicas_in_sync > 1 or tf.distribute.has_strategy():
        raise BaechiError(
            "B716", f"model '{model.name}' belongs to a tf.distribute strategy", help="make it outside of its scope"
        )
    steps = Steps(model.name, planner)
    model.baechi = steps
    plain = model.make_train_function

    def make_train_function(force: bool = False) -> Any:
        if is_disabled():
            return plain(force=force)
        model.train_function = functools.partial(_train, model, steps)
        return model.train_function

    model.make_train_function = make_train_function
    return model


def _train(model: Any, steps: Steps, iterator: Iterator[Any]) -> Any:
    """What ``fit`` calls for as many batches as one execution takes; ends as Keras's own does."""
    logs = None
    for _ in range(model.steps_per_execution):
        try:
            batch = next(iterator)
        except StopIteration:
            if logs is None:
                raise
            break
        given = tuple(part for part in keras.utils.unpack_x_y_sample_weight(batch) if part is not None)
        logs = _placed(model, steps, batch, given)(*given)
    return logs


def _placed(model: Any, steps: Steps, batch: Any, given: tuple[Any, ...]) -> PlacedStep:
    before = len(steps.placed)
    step = steps.find(given, {}, lambda: capture_keras(model, *keras.utils.unpack_x_y_sample_weight(batch)))
    if len(steps.placed) > before:  # functions that were traced before know the variables where they were
        model.test_function = model.predict_function = None
    return step
