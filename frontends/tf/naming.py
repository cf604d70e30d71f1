"""Names of variables and paths of layers, as the model's author knows them."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

__all__ = ["Paths", "layer_names", "reachable", "unique", "variable_paths"]

_COUNTED = re.compile(r"_\d+$")


def reachable(step: Any) -> Iterator[Any]:
    """Models, layers, modules and optimisers that a step refers to: its object, its non-local and global names."""
    plain = inspect.unwrap(getattr(step, "python_function", step))
    found = [getattr(plain, "__self__", None)]
    try:
        names = inspect.getclosurevars(getattr(plain, "__func__", plain))
        found += [*names.nonlocals.values(), *names.globals.values()]
    except (TypeError, ValueError):
        found += list(getattr(plain, "__dict__", {}).values())
    for owner in found:
        if isinstance(owner, tf.Module) or hasattr(owner, "variables"):
            yield owner
        elif owner is not None and type(owner).__module__ not in ("builtins", "types"):
            yield from (
                (v for v in vars(owner).values() if hasattr(v, "variables")) if hasattr(owner, "__dict__") else ()
            )


def variable_paths(owners: Iterable[Any]) -> dict[int, str]:
    """By id of a `tf.Variable`, its path in the model or optimiser that owns it."""
    paths: dict[int, str] = {}
    for owner in owners:
        try:
            variables = list(owner.variables() if callable(owner.variables) else owner.variables)
        except (AttributeError, TypeError, ValueError):
            continue
        for variable in variables:
            path = getattr(variable, "path", None)
            held = getattr(variable, "value", None)
            if isinstance(path, str) and isinstance(held, tf.Variable):
                paths[id(held)] = path
    return paths


class Paths:
    """Paths of modules from scopes of names.

    TensorFlow counts how often a scope was entered: the second call of ``cell`` is in ``cell_1``. Both are
    the module ``cell``, unless a layer is called ``cell_1``.

    Args:
        names: of layers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.known: dict[str, str] = {}

    def module(self, node: str) -> str:
        """The path of the module whose code made a node, elements apart by dots."""
        scope = node.rpartition("/")[0]
        if scope not in self.known:
            self.known[scope] = ".".join(self._element(e) for e in scope.split("/") if e)
        return self.known[scope]

    def _element(self, element: str) -> str:
        if element in self.names:
            return element
        base = _COUNTED.sub("", element)
        return base if base in self.names else element


def layer_names(owners: Iterable[Any]) -> Iterator[str]:
    """Names of all layers and modules of some owners."""
    for owner in owners:
        if isinstance(owner, tf.Module):
            yield from (m.name for m in (owner, *owner.submodules))
        for layer in getattr(owner, "_flatten_layers", tuple)():
            yield layer.name


def unique(names: Mapping[str, str], taken: Iterable[str]) -> dict[str, str]:
    """The same names, later ones of equals counted."""
    used = set(taken)
    result: dict[str, str] = {}
    for key, name in names.items():
        candidate, count = name, 1
        while candidate in used:
            candidate, count = f"{name}_{count}", count + 1
        used.add(candidate)
        result[key] = candidate
    return result
