"""What a plan of a module depends on: the kind of its inputs, and the state of the module that is no weight."""

import dataclasses
import io
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from baechi.errors import BaechiError

__all__ = ["Kind", "is_uninitialized", "kind_of", "modules_of", "open_objects"]

_PLAIN = frozenset({bool, int, str, type(None), torch.dtype})
_CONTAINERS = frozenset({dict, OrderedDict, set, list, tuple})
_SHOWN = 6
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What a plan holds for; two calls of equal kinds run by the same plan.

    Args:
        inputs: shape, type and gradient flag of each tensor, and the value of all else.
        structure: how the inputs are nested.
        state: of each module inside, its class, its attributes that are numbers or strings (``training``
            among them), its hooks, and the shape and type of its parameters and buffers.
        autocast: the type that operations are cast to, by device type.
    """

    inputs: tuple[object, ...]
    structure: pytree.TreeSpec
    state: tuple[object, ...]
    autocast: tuple[object, ...]

    def news(self, others: Iterable["Kind"]) -> str:
        """What none of the others has, in a few words."""
        alike = [o for o in others if (o.inputs, o.structure) == (self.inputs, self.structure)]
        if not alike:
            shown = [*map(_shown, self.inputs[:_SHOWN]), *(["…"] if len(self.inputs) > _SHOWN else [])]
            return "inputs " + ", ".join(shown)
        if all(o.autocast != self.autocast for o in alike):
            return "another autocast"
        return "a changed module (its mode, attributes, hooks or weights)"


def kind_of(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Kind:
    """The kind of a call of a module.

    Raises:
        BaechiError: B608 on an input that cannot be looked into.
    """
    leaves, tree = pytree.tree_flatten((tuple(args), dict(kwargs)))
    if open_objects(leaves):
        leaves, tree = pytree.tree_flatten((tuple(args), dict(kwargs)))
    numbers: dict[int, int] = {}
    modules = modules_of(module)
    state = tuple(_state(owner, numbers, hooks=owner is not module) for owner in modules)
    return Kind(tuple(map(_leaf, leaves)), tree, state, _autocast())


def modules_of(module: nn.Module) -> list[nn.Module]:
    """The module and all modules inside, each once, in a fixed order."""
    found, waiting = {}, [module]
    while waiting:
        owner = waiting.pop()
        if id(owner) not in found:
            found[id(owner)] = owner
            waiting += [child for child in owner._modules.values() if child is not None]
    return list(found.values())


def is_uninitialized(module: nn.Module) -> bool:
    """Whether a parameter inside gets its shape at the first call."""
    return any(p is not None and is_lazy(p) for owner in modules_of(module) for p in owner._parameters.values())


def open_objects(leaves: Iterable[Any]) -> bool:
    """Let torch look into the objects that hold tensors; returns whether there were any.

    Their classes become pytree nodes: dataclasses with their fields, others by way of `pickle`.

    Raises:
        BaechiError: B608 on a module, and on what cannot be taken apart.
    """
    opened = False
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) or type(leaf) in pytree.SUPPORTED_NODES or not _holds_tensors(leaf):
            continue
        cls = type(leaf)
        try:
            if isinstance(leaf, nn.Module):
                raise TypeError("it is a module")
            _take_apart(leaf)
            if dataclasses.is_dataclass(cls):
                pytree.register_dataclass(cls)
            else:
                pytree.register_pytree_node(cls, _take_apart, _put_together)
        except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
            raise BaechiError(
                "B608",
                f"a {cls.__name__} holds tensors, which a placed module can neither take nor return that way: {error}",
                help=f"use tuples, dicts or dataclasses, or torch.utils._pytree.register_pytree_node({cls.__name__}, …)",
            ) from error
        opened = True
    return opened


class _Taker(pickle.Pickler):
    """Leaves the tensors out."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[torch.Tensor] = []

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, torch.Tensor):
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Giver(pickle.Unpickler):
    """Puts tensors, or what stands for them, in again."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Any]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, pid: int) -> Any:
        return self.tensors[pid]


def _take_apart(value: Any) -> tuple[list[torch.Tensor], bytes]:
    file = io.BytesIO()
    taker = _Taker(file)
    taker.dump(value)
    return taker.tensors, file.getvalue()


def _put_together(tensors: Iterable[Any], rest: Any) -> Any:
    return _Giver(io.BytesIO(rest), list(tensors)).load()


def _holds_tensors(value: Any, depth: int = 4) -> bool:
    """Whether there are tensors among the attributes of an object, or of what these hold."""
    if isinstance(value, torch.Tensor | nn.Module):
        return True
    if depth == 0 or type(value) in _PLAIN:
        return False
    if isinstance(value, list | tuple | dict):
        parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, field.name, None) for field in dataclasses.fields(value))
    else:
        parts = getattr(value, "__dict__", {}).values()
    return any(_holds_tensors(part, depth - 1) for part in parts)


def _state(owner: nn.Module, numbers: dict[int, int], *, hooks: bool) -> object:
    """The hooks of the outermost module are run around its forward, so they are no part of it."""
    held = vars(owner)
    noted: list[object] = [type(owner)]
    for name, value in held.items():
        cls = type(value)
        if cls in _PLAIN:
            noted += (name, cls, value)
        elif cls not in _CONTAINERS and isinstance(value, float | torch.Tensor):
            # A tensor's values are read at each call: only another tensor matters.
            noted += (name, id(value) if isinstance(value, torch.Tensor) else repr(value))
    for tensors in (held["_parameters"], held["_buffers"]):
        for name, t in tensors.items():
            if t is not None:
                number = numbers.setdefault(id(t), len(numbers))
                noted += (name, number, t.shape, t.dtype, t.requires_grad)
    if hooks:
        noted += [tuple(held[kind]) for kind in _HOOKS if held[kind]]
    return tuple(noted)


def _leaf(leaf: Any) -> object:
    if isinstance(leaf, torch.Tensor):
        return torch.Tensor, tuple(leaf.shape), leaf.dtype, leaf.requires_grad
    if isinstance(leaf, float):
        return float, repr(leaf)
    try:
        hash(leaf)
    except TypeError:
        return type(leaf), _bytes(leaf)
    return type(leaf), leaf


def _bytes(leaf: Any) -> bytes:
    try:
        return pickle.dumps(leaf)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise BaechiError(
            "B608",
            f"an input is a {type(leaf).__name__}, whose value cannot be compared from call to call",
            help="give tensors, numbers and strings",
        ) from error


def _shown(leaf: Any) -> str:
    return str(tuple(leaf[1])) if leaf[0] is torch.Tensor else str(leaf[1])[:20]


def _autocast() -> tuple[object, ...]:
    kinds = ("cpu", "cuda")
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind))
