"""What a step changes in Python: tracing runs it once, so such a change would happen once, not in each step."""

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Effects"]

_PLAIN = (bool, int, float, str, bytes, type(None))
_CONTAINERS = (list, dict, set)


@dataclass(frozen=True, slots=True)
class Effects:
    """What a function can reach and change: its own non-local and global names and the attributes of its object.

    Args:
        function: the step.
        before: by name, plain values and the sizes of containers before it ran.
    """

    function: Callable[..., Any]
    before: dict[str, Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Effects":
        """Note the state before the step runs."""
        return cls(function, dict(_state(function)))

    @property
    def changed(self) -> str | None:
        """The name of something that is no longer what it was."""
        return next((n for n, value in _state(self.function) if n in self.before and self.before[n] != value), None)


def _state(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    plain = inspect.unwrap(function)
    owner = getattr(plain, "__self__", None)
    code = getattr(getattr(plain, "__func__", plain), "__code__", None)
    if not isinstance(code, types.CodeType):
        return
    names = inspect.getclosurevars(getattr(plain, "__func__", plain))
    for name, value in {**names.globals, **names.nonlocals}.items():
        yield from _value(name, value)
        if name in code.co_freevars and type(value).__module__ != "builtins" and not _is_framework(value):
            yield from _attributes(name, value)
    if owner is not None and not _is_framework(owner):
        yield from _attributes("self", owner)


def _attributes(name: str, owner: Any) -> Iterator[tuple[str, Any]]:
    for key, value in list(getattr(owner, "__dict__", {}).items()):
        yield from _value(f"{name}.{key}", value)


def _value(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _PLAIN):
        yield name, value
    elif type(value) in _CONTAINERS:
        yield name, len(value)


def _is_framework(value: Any) -> bool:
    """What TensorFlow and Keras track may be built as it is first called."""
    return any(c.__module__.partition(".")[0] in ("keras", "tensorflow") for c in type(value).__mro__)
