"""The devices of a plan as TensorFlow's."""

from collections.abc import Mapping

import tensorflow as tf

from baechi.errors import BaechiError
from baechi.ir.plan import Plan

__all__ = ["LOCAL", "device_names", "ensure_devices", "has_started", "local_name"]

LOCAL = "/job:localhost/replica:0/task:0"
"""This process, to TensorFlow."""

_LEAST = 8


def has_started() -> bool:
    """Whether TensorFlow has initialised its devices, after which there can be no more of them."""
    from tensorflow.python.eager import context  # the public API has no such question

    return bool(context.context()._initialized)


def ensure_devices(count: int = _LEAST) -> None:
    """Have so many logical CPU devices in this process, or the most that TensorFlow's state allows.

    Before TensorFlow has begun there will be at least 8: they cost nothing when nobody uses them, and
    it is not known yet for how many devices a later plan is. Once it has begun nothing changes.

    Args:
        count: how many.
    """
    if has_started():
        return
    cpus = tf.config.list_physical_devices("CPU")
    known = tf.config.get_logical_device_configuration(cpus[0]) or []
    wanted = max(count, _LEAST)
    if len(known) <= 1 and len(cpus) == 1:  # a person's own configuration stays
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * wanted)


def local_name(kind: str, index: int) -> str:
    """The full name of a device of this process.

    Example:
        >>> local_name("CPU", 1)
        '/job:localhost/replica:0/task:0/device:CPU:1'
    """
    return f"{LOCAL}/device:{kind}:{index}"


def device_names(plan: Plan) -> dict[str, str]:
    """TensorFlow's full name of each device of a plan: logical CPU devices in their order, and GPUs by their index.

    Raises:
        BaechiError: B606 when this machine has no such GPU, B620 when TensorFlow has begun with fewer CPU
            devices than the plan needs.
    """
    found: dict[str, str] = {}
    cpus = 0
    for device in plan.cluster.devices:
        if device.backend == "cpu":
            found[device.name] = local_name("CPU", cpus)
            cpus += 1
        else:
            found[device.name] = local_name("GPU", _index(device.name))
    ensure_devices(cpus)
    _check_present(found)
    return found


def _index(name: str) -> int:
    index = name.rpartition(":")[2]
    return int(index) if index.isdecimal() else 0


def _check_present(wanted: Mapping[str, str]) -> None:
    present = {device.name for device in tf.config.list_logical_devices()}
    for name, full in wanted.items():
        if full.removeprefix(LOCAL) in {p.removeprefix(LOCAL) for p in present}:
            continue
        if ":GPU:" in full:
            raise BaechiError(
                "B606", f"this machine has no device '{name}'", help="place the step for devices that are here"
            )
        have = sum(":CPU:" in p for p in present)
        raise BaechiError(
            "B620",
            f"TensorFlow has begun with {have} CPU device{'s' * (have != 1)}, and the plan needs '{name}' too",
            help="decorate or plan before the first tensor is made, or begin with "
            "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)",
        )
