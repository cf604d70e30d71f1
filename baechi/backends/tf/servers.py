"""Worker processes for the devices of a plan: TensorFlow servers on this machine, each with its own memory."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import tensorflow as tf

from baechi.backends.tf.limits import capped_environment
from baechi.errors import BaechiError
from baechi.ir.plan import Plan

__all__ = ["connect", "start_servers", "task_name"]


def task_name(task: int) -> str:
    """The full name of the processor of a worker.

    Example:
        >>> task_name(1)
        '/job:worker/replica:0/task:1/device:CPU:0'
    """
    return f"/job:worker/replica:0/task:{task}/device:CPU:0"


@contextmanager
def start_servers(
    plan: Plan, *, capped: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Start a worker for each device that a plan uses, and connect to them; none is left when the block ends.

    Call it before the step is captured: connecting starts TensorFlow's devices anew. What the workers' tensors
    take together is held to the memory of the device; past it a step fails with B615.

    Args:
        plan: whose devices are on processors.
        capped: whether a worker is held to its device's memory.
        environment: of the workers; this process's own by default.

    Yields:
        TensorFlow's name of each device of the plan; those without ops have the first worker's.

    Raises:
        BaechiError: B606 on a device that is no processor, B617 when a worker does not start.
    """
    for device in plan.cluster.devices:
        if device.backend != "cpu":
            raise BaechiError("B606", f"device '{device.name}' is no processor", help="run it with --workers threads")
    used = [d for d in plan.cluster.devices if plan.order.get(d.name)]
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(len(used))]
    processes: list[subprocess.Popen[str]] = []
    try:
        for task, device in enumerate(used):
            cap = device.memory_bytes if capped else None
            more = capped_environment(cap, device.threads)
            processes.append(_start({**(environment or os.environ), **more}, [addresses, task, device.threads]))
        for device, process in zip(used, processes, strict=True):
            _await(process, device.name)
        connect(addresses)
        names = dict.fromkeys((d.name for d in plan.cluster.devices), task_name(0))
        yield names | {device.name: task_name(task) for task, device in enumerate(used)}
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def connect(addresses: Sequence[str]) -> None:
    """Let this process place ops on workers that serve at these addresses, by `task_name`."""
    tf.config.experimental_connect_to_cluster(tf.train.ClusterSpec({"worker": list(addresses)}))


def _start(environment: Mapping[str, str], order: object) -> "subprocess.Popen[str]":
    path = os.pathsep.join(entry or os.curdir for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "baechi.backends.tf.server"],
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # servers tell of every socket that closes
        text=True,
    )
    assert process.stdin is not None  # it is a pipe
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    return process


def _await(process: "subprocess.Popen[str]", name: str) -> None:
    assert process.stdout is not None  # it is a pipe
    if process.stdout.readline().strip() != "ready":
        raise BaechiError("B617", f"the worker of '{name}' ended before it served", help="is TensorFlow installed?")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()
