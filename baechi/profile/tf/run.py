"""Train a TensorFlow step, as planned and as it is, and measure its ops."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from baechi.backends.plans import plan_in_program_order
from baechi.backends.tf.devices import device_names, ensure_devices, local_name
from baechi.backends.tf.placed import PlacedStep
from baechi.backends.tf.rewrite import placed_graph
from baechi.frontends.tf import TensorFlowProgram, capture, capture_keras, train_step
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline
from baechi.profile.beside import busy_neighbours
from baechi.profile.measured import PLAIN_DEVICE, Measured, summarize
from baechi.profile.room import check_room
from baechi.profile.tf.memory import peaks_of, persistent_bytes
from baechi.profile.tf.ops import profile_ops
from baechi.profile.tf.timeline import traced_timelines
from baechi.profile.tf.trace import Tracer

__all__ = ["Build", "capture_seeded", "examples", "measure_ops", "trace", "train", "train_plain"]

Build = Callable[[], Mapping[str, Any]]
"""Makes the step: ``step``, ``args``, ``kwargs``, or ``model``, ``x``, ``y``, ``sample_weight``."""

_BATCH = ("x", "y", "sample_weight")


def capture_seeded(build: Build, *, name: str, seed: int = 0) -> TensorFlowProgram:
    """Make a step with the weights that a seed gives, and capture it.

    Raises:
        BaechiError: B7xx as `capture`.
    """
    ensure_devices()
    with _seeded(seed):
        return _capture(build(), name)


def _capture(given: Mapping[str, Any], name: str) -> TensorFlowProgram:
    if "model" in given:
        return capture_keras(given["model"], *(given.get(key) for key in _BATCH), name=name)
    return capture(given["step"], given.get("args", ()), given.get("kwargs"), name=name)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within, whatever draws random numbers begins with this seed; Python's and numpy's go on as before after it."""
    plain, numbers = random.getstate(), np.random.get_state()
    tf.keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)


def examples(args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments to run a step with: those of the capture, random numbers and zeros for a `tf.TensorSpec`."""
    numbers = np.random.default_rng(0)

    def example(leaf: Any) -> Any:
        if not isinstance(leaf, tf.TensorSpec):
            return leaf
        if leaf.dtype.is_floating:
            return tf.cast(numbers.standard_normal(tuple(leaf.shape)), leaf.dtype)
        return tf.zeros(leaf.shape, leaf.dtype)

    found: tuple[tuple[Any, ...], dict[str, Any]] = tf.nest.map_structure(example, (tuple(args), dict(kwargs or {})))
    return found


def train(
    program: TensorFlowProgram,
    plan: Plan,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    steps: int,
    warmup: int = 1,
    memory: bool = True,
    devices: Mapping[str, str] | None = None,
) -> Measured:
    """Train some steps of a program as planned, on one batch.

    The step has variables of its own, so that the next run begins where this one did.

    Args:
        program: the captured step.
        plan: for its graph.
        inputs: args and kwargs of every step.
        steps: how many are timed.
        warmup: how many come before.
        memory: whether one more step, traced, measures the memory of each device, those of this process.
        devices: as for `PlacedStep`.

    Raises:
        BaechiError: B610 when this machine lacks the memory, B6xx as `PlacedStep`.
    """
    if devices is None:
        devices = device_names(plan)
        check_room(plan)
    leaves = program.flatten(*inputs)
    step = PlacedStep(program, plan, devices=devices)
    seconds, losses = _timed(lambda: program.rebuild(step.step(leaves)), steps, warmup)
    return summarize(seconds, losses, _peaks(program, plan, leaves) if memory else {})


def trace(
    program: TensorFlowProgram,
    plan: Plan,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    steps: int,
    warmup: int = 1,
) -> tuple[Timeline, ...]:
    """Train some steps under TensorFlow's tracing, on logical devices of this process; errors as `traced_timelines`."""
    check_room(plan)
    return traced_timelines(program, plan, program.flatten(*inputs), steps=steps, warmup=warmup)


def _timed(run: Callable[[], Any], steps: int, warmup: int) -> tuple[list[float], list[float]]:
    """The seconds of each timed step, and the losses of all."""
    seconds: list[float] = []
    losses: list[float] = []
    for i in range(warmup + steps):
        start = time.perf_counter()
        loss = _loss_of(run())
        if loss is not None:
            losses.append(float(loss))  # waits for a GPU too
        if i >= warmup:
            seconds.append(time.perf_counter() - start)
    return seconds, losses


def _loss_of(results: Any) -> Any:
    """What is called so among the results, or their only scalar; None when there is none."""
    if isinstance(results, Mapping) and "loss" in results:
        return results["loss"]
    leaves = [t for t in tf.nest.flatten(results) if isinstance(t, tf.Tensor)]
    return leaves[0] if len(leaves) == 1 and leaves[0].shape == () and leaves[0].dtype.is_floating else None


def _peaks(program: TensorFlowProgram, plan: Plan, leaves: Sequence[Any]) -> dict[str, int]:
    """Measured on logical CPU devices, whatever the devices of the plan are."""
    full = {device: local_name("CPU", i) for i, device in enumerate(plan.cluster.device)}
    names = {f: device for device, f in full.items()}
    with Tracer(program, placed_graph(program, plan, full), leaves, devices=len(full)) as tracer:
        tracer.run()
        traced = tracer.run()
    held = persistent_bytes(program, plan)
    return {device: held[device] + nbytes for device, nbytes in peaks_of(traced, names).items()}


def train_plain(
    build: Build,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    steps: int,
    warmup: int = 1,
    seed: int = 0,
    memory: bool = True,
) -> Measured:
    """Make a step and run it some times on one batch, as the `tf.function` that it is.

    Args:
        build: makes the step; weights are drawn from `seed`.
        inputs: args and kwargs of every step.
        steps: how many are timed, at least 1.
        warmup: how many come before.
        seed: of weights and dropout.
        memory: whether one more step, traced, measures the peak of all that it allocates and of the variables.

    Raises:
        BaechiError: B7xx as `capture`, of the measurement of the memory.
    """
    with _seeded(seed):
        given = build()
    step = train_step(given["model"], *(given.get(key) for key in _BATCH)) if "model" in given else given["step"]
    run = step if isinstance(step, tf.types.experimental.PolymorphicFunction) else tf.function(step)
    args, kwargs = inputs
    seconds, losses = _timed(lambda: run(*args, **kwargs), steps, warmup)
    return summarize(seconds, losses, _plain_peak(given, inputs) if memory else {})


def _plain_peak(given: Mapping[str, Any], inputs: tuple[Sequence[Any], Mapping[str, Any]]) -> dict[str, int]:
    program = _capture(given, "plain")
    plan = plan_in_program_order(program.graph, {op.name: PLAIN_DEVICE for op in program.graph.ops})
    try:
        return _peaks(program, plan, program.flatten(*inputs))
    except tf.errors.ResourceExhaustedError:
        return {}  # tracing holds the variables twice, which a cap may forbid


def measure_ops(
    program: TensorFlowProgram, inputs: tuple[Sequence[Any], Mapping[str, Any]], *, beside: int = 0
) -> dict[str, float]:
    """Time of each kind of op on one core, in seconds by `Op.key`, in steps on real weights and inputs.

    Args:
        program: the captured step.
        inputs: args and kwargs of a step.
        beside: how many other processes compute meanwhile.

    Raises:
        BaechiError: B622 as `profile_ops`.
    """
    with busy_neighbours(beside):
        return profile_ops(program, program.flatten(*inputs))
