"""Paths of modules and names of variables, as the model's author knows them."""

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

__all__ = ["Scopes", "reachable", "unique", "variable_paths"]

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def reachable(step: Any) -> tuple[Any, ...]:
    """Models, layers, modules and optimisers that a step refers to: its object, its non-local and global names."""
    plain = inspect.unwrap(getattr(step, "python_function", step))
    found = [getattr(plain, "__self__", None)]
    try:
        names = inspect.getclosurevars(getattr(plain, "__func__", plain))
        found += [*names.nonlocals.values(), *names.globals.values()]
    except (TypeError, ValueError):  # an object that can be called, such as a functools.partial
        found.append(plain)
    owners: dict[int, Any] = {}
    for value in found:
        for owner in (value, *_attributes(value)):
            if isinstance(owner, tf.Module) or _has_variables(owner):
                owners[id(owner)] = owner
    return tuple(owners.values())


def _attributes(value: Any) -> list[Any]:
    """Of an object of a class of the user's own."""
    if inspect.ismodule(value) or inspect.isclass(value) or isinstance(value, tf.Module) or _has_variables(value):
        return []
    return list(getattr(value, "__dict__", {}).values())


def _has_variables(value: Any) -> bool:
    return type(value).__module__ != "builtins" and not inspect.isclass(value) and hasattr(type(value), "variables")


def variable_paths(owners: Iterable[Any]) -> dict[int, str]:
    """By id of a `tf.Variable`, its path in the Keras model or optimiser that owns it."""
    paths: dict[int, str] = {}
    for owner in owners:
        variables = getattr(owner, "variables", ())
        for variable in variables if isinstance(variables, list | tuple) else ():
            path, held = getattr(variable, "path", None), getattr(variable, "value", None)
            if isinstance(path, str) and isinstance(held, tf.Variable):
                paths[id(held)] = path
    return paths


class Scopes:
    """Which module's code made a node.

    TensorFlow counts how often a scope was entered, so the scope of a layer's call does not tell its name.
    While a step is traced, each layer notes the scope that it is called in.
    """

    def __init__(self) -> None:
        self.noted: dict[Any, dict[str, str]] = {}
        self.path: dict[str, str] = {}
        self.known: dict[str, str] = {}
        self.running: list[str] = []

    @contextlib.contextmanager
    def recorded(self, owners: Iterable[Any]) -> Iterator[None]:
        """Note the scopes of all layers of some models meanwhile."""
        layers = {id(layer): layer for owner in owners for layer in _layers(owner)}
        for layer in layers.values():
            object.__setattr__(layer, "call", self._noting(layer, layer.call))
        try:
            yield
        finally:
            for layer in layers.values():
                object.__delattr__(layer, "call")

    def _noting(self, layer: Any, call: Any) -> Any:
        @functools.wraps(call)
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.running.append(layer.name)
            here = self.noted.setdefault(tf.compat.v1.get_default_graph(), {})
            here.setdefault(tf.get_current_name_scope(), ".".join(self.running))
            try:
                return call(*args, **kwargs)
            finally:
                self.running.pop()

        return noting

    def use(self, graph: Any) -> None:
        """Take what was noted in a graph, and where that says nothing, in the functions that it calls."""
        self.path = dict(self.noted.get(graph, {}))
        for other in self.noted.values():
            self.path = {**other, **self.path}

    def module(self, node: str) -> str:
        """The path of the innermost module that a node is in, elements apart by dots; else its whole scope."""
        return self.layer(node) or ".".join(_parts(node))

    def layer(self, node: str) -> str:
        """The path of the innermost module that a node is in, or nothing."""
        scope = node.rpartition("/")[0]
        if scope not in self.known:
            parts = _parts(node)
            paths = ("/".join(parts[:i]) for i in range(len(parts), 0, -1))
            self.known[scope] = next((self.path[p] for p in paths if p in self.path), "")
        return self.known[scope]


def _parts(node: str) -> list[str]:
    """The scope of a node, without the calls of functions that were inlined."""
    parts = node.split("/")[:-1]
    while parts and parts[0].startswith(_CALLS):
        parts = parts[1:]
    return parts


def _layers(owner: Any) -> Iterator[Any]:
    """Keras layers in a model or a `tf.Module` whose ``call`` is not their own already."""
    found = list(getattr(owner, "_flatten_layers", tuple)())
    if isinstance(owner, tf.Module):
        found += [m for m in owner.submodules if hasattr(m, "_flatten_layers")]
    for layer in found:
        if "call" not in vars(layer) and callable(getattr(layer, "call", None)):
            yield layer


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
