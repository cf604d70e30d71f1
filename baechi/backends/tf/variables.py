"""Where the variables of a placed step are: copies of its own, or the user's own ones, moved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from baechi.backends.tf.devices import LOCAL
from baechi.errors import BaechiError
from baechi.frontends.tf.program import TensorFlowProgram

__all__ = ["Copies", "Homes", "Moved"]


@dataclass(slots=True, eq=False)
class _Home:
    """A user's variable and the one on the planned device that stands for it."""

    variable: Any
    placed: Any
    handle: Any
    before: Any


class Homes:
    """The resources of a placed step, by placeholder.

    Args:
        program: the step.
        wanted: by placeholder of a resource, TensorFlow's name of the planned device.

    Attributes:
        handles: by placeholder, what the step reads and writes.

    Raises:
        BaechiError: B622 on a resource that is on another device and is no variable.
    """

    def __init__(self, program: TensorFlowProgram, wanted: Mapping[str, str]) -> None:
        self.handles: dict[str, Any] = {}
        self._homes: list[_Home] = []
        for placeholder, device in wanted.items():
            handle = program.captures[placeholder]
            variable = program.trained.get(placeholder)
            if variable is None:
                self.handles[placeholder] = _fixed(handle, device, program.variables[placeholder])
                continue
            home = self._home(variable, device)
            self._homes.append(home)
            self.handles[placeholder] = home.handle

    def _home(self, variable: Any, device: str) -> _Home:
        placed = _like(variable, device)
        return _Home(variable, placed, placed.handle, variable.handle)

    def enter(self) -> None:
        """Before each step."""

    def sync(self) -> None:
        """Have the user's variables hold what the step's do."""

    def close(self) -> None:
        """Have the user's variables hold what the step's do, where they were before it."""


class Copies(Homes):
    """Variables of the step's own; the user's ones change when `sync` is called."""

    def sync(self) -> None:
        """Copy the values back."""
        for home in self._homes:
            home.variable.assign(home.placed.read_value())

    def close(self) -> None:
        """Copy the values back."""
        self.sync()


class Moved(Homes):
    """The user's own variables, on the planned devices: a variable that is there stays, others get a handle there.

    Functions that were traced before hold the handle of before; `close` gives it back.
    """

    def _home(self, variable: Any, device: str) -> _Home:
        if variable.handle.device == device or variable.device == device:
            return _Home(variable, None, variable.handle, variable.handle)
        return super()._home(variable, device)

    def enter(self) -> None:
        """Move whatever is elsewhere: before the first step, and when another step moved it meanwhile."""
        for home in self._homes:
            if home.variable.handle is not home.handle:
                _move(home.variable, home.handle, home.placed)

    def close(self) -> None:
        """Move all back."""
        for home in self._homes:
            if home.variable.handle is home.handle and home.before is not home.handle:
                _move(home.variable, home.before, None)


def _like(variable: Any, device: str) -> Any:
    """A new variable with the same value on a device."""
    try:
        with tf.init_scope(), tf.device(device):
            made = tf.Variable(variable.read_value(), trainable=False, dtype=variable.dtype, shape=variable.shape)
            if not device.startswith(LOCAL):  # a worker is told, and fails later
                tf.raw_ops.VarIsInitializedOp(resource=made.handle).numpy()
            return made
    except (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError) as error:
        what = f"OOM when allocating variable '{variable.name}' on {device}: {error.message}"
        raise tf.errors.ResourceExhaustedError(None, None, what) from error


def _move(variable: Any, handle: Any, owner: Any) -> None:
    """Let a variable be what is behind another handle, with the value that it has now."""
    with tf.init_scope():
        value = variable.read_value()
        with tf.device(handle.device):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    variable._handle = handle
    variable._baechi_owner = owner  # whose end would be the end of the memory behind the handle


def _fixed(handle: Any, device: str, name: str) -> Any:
    if handle.device == device:
        return handle
    raise BaechiError(
        "B622",
        f"'{name}' is no variable but another resource of {handle.device}, and cannot be moved to {device}",
        help="keep tables and generators out of the step, or place it on one device",
    )
