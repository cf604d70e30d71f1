"""Measure what this machine's processor does under TensorFlow, once, and find its GPUs."""

import platform
from typing import Any

import tensorflow as tf

from baechi.backends.tf.devices import ensure_devices
from baechi.config import cores
from baechi.ir.cluster import Cluster, Device, Link
from baechi.presets import presets
from baechi.profile.machine import Machine, cached, least_seconds

__all__ = ["gpu_cluster", "measure_cpu"]

_VERSION = 1
_SIDE = 768
_STREAM = 4 * 2**20
_CHAIN = 200


def measure_cpu(*, refresh: bool = False) -> Machine:
    """What one core does under TensorFlow, and what lies between two logical devices; measured in some seconds, once.

    Between logical devices no byte is copied: a transfer costs a send, a receive and a wake-up, so
    `Machine.copy_bytes_per_second` is only that of memory.

    Args:
        refresh: measure even when there is a measurement.
    """
    identity = [_VERSION, tf.__version__, platform.node(), platform.machine(), cores()]
    return cached("cpu-tensorflow.json", identity, _measure, refresh=refresh)


def _measure() -> Machine:
    with tf.Graph().as_default(), _session(2) as session:
        a = tf.constant(1.0, shape=(_SIDE, _SIDE))
        a = tf.compat.v1.placeholder_with_default(a, a.shape)
        product = _seconds(session, tf.matmul(a, a).op, a.op)
        stream = tf.compat.v1.placeholder_with_default(tf.constant(1.0, shape=(_STREAM,)), (_STREAM,))
        scaled = _seconds(session, tf.raw_ops.Sqrt(x=stream).op, stream.op)
        small = tf.compat.v1.placeholder_with_default(tf.constant(1.0, shape=(4,)), (4,))
        here = _seconds(session, _chain(small, 1), small.op)
        there = _seconds(session, _chain(small, 2), small.op)
    launch, hop = here / _CHAIN, max((there - here) / _CHAIN, 1e-7)
    moved = 8.0 * _STREAM / scaled
    return Machine(
        flops_per_second=2.0 * _SIDE**3 / product,
        bytes_per_second=moved,
        launch_seconds=launch,
        copy_bytes_per_second=moved,
        handoff_seconds=hop / 2,
        wire_bytes_per_second=moved / 4,
        wire_seconds=4e-4,
        cores=cores(),
    )


def _session(devices: int) -> Any:
    """A session of one thread whose graphs are run as they are."""
    config = tf.compat.v1.ConfigProto(
        device_count={"CPU": devices},
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=1,
        use_per_session_threads=True,
    )
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    return tf.compat.v1.Session(config=config)


def _chain(value: Any, devices: int) -> Any:
    """One small op after another, on the devices in turn."""
    for i in range(_CHAIN):
        with tf.device(f"/cpu:{i % devices}"):
            value = tf.raw_ops.Neg(x=value)
    return value.op


def _seconds(session: Any, work: Any, idle: Any) -> float:
    """The least time of an op beyond that of a call that does nothing else."""
    return max(least_seconds(lambda: session.run(work), 0.3) - least_seconds(lambda: session.run(idle), 0.3), 1e-9)


def gpu_cluster() -> Cluster | None:
    """The GPUs that TensorFlow sees, each with the rates of the preset of its name; None when there is none.

    A GPU without a preset gets the rates of the slowest one: measure its ops.
    """
    found = tf.config.list_physical_devices("GPU")
    if not found:
        return None
    ensure_devices()
    names = [str(tf.config.experimental.get_device_details(gpu).get("device_name", "")) for gpu in found]
    rows = [_gpu(i, name) for i, name in enumerate(names)]
    links = [link for _, link in rows]
    slowest = Link(max(k.latency_seconds for k in links), min(k.bytes_per_second for k in links))
    return Cluster(tuple(device for device, _ in rows), slowest)


def _gpu(i: int, name: str) -> tuple[Device, Link]:
    known = presets().values()
    named = [p for p in known if p.title.lower() in name.lower() or name.lower() in p.title.lower()]
    preset = named[0] if named and name else min(known, key=lambda p: p.bytes_per_second)
    device = Device(
        f"cuda:{i}",
        preset.memory_bytes,
        type=preset.name,
        backend="cuda",
        flops_per_second=preset.flops_per_second,
        bytes_per_second=preset.bytes_per_second,
        launch_seconds=preset.launch_seconds,
        efficiency=preset.efficiency,
    )
    return device, preset.link
