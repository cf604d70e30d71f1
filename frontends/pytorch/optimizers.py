"""Optimisers as data: what state they keep for a parameter, and what a step of them costs."""

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import OptimizerSpec, ParameterGroup

__all__ = ["NAMES", "optimizer_spec", "state_bytes", "update_cost"]

NAMES: Mapping[str, tuple[type[Optimizer], Mapping[str, Any]]] = {
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
    "momentum": (SGD, {"momentum": 0.9}),
    "rmsprop": (RMSprop, {}),
    "sgd": (SGD, {}),
}
_TEMPORARIES = {SGD: 0, Adam: 2, AdamW: 2}
_SIDES = (5, 7, 11, 13, 17)  # distinct, so that a state's sides can be told apart


def optimizer_spec(
    optimizer: str | type[Optimizer] | Optimizer | None,
    options: Mapping[str, Any] | None = None,
    module: nn.Module | None = None,
) -> OptimizerSpec | None:
    """Read an optimiser given by name, class or instance.

    Args:
        optimizer: a name of `NAMES`, a class, an instance, or None.
        options: hyper-parameters that override those of the name or of all groups of the instance.
        module: whose parameters the instance updates. The groups of an instance made for another
            module, such as a copy, must have the same options.

    Raises:
        BaechiError: B704 on an unknown name or option, groups that differ in their options without
            the module, or a parameter that the module does not have.

    Example:
        >>> optimizer_spec("momentum", {"lr": 0.1}).options
        {'momentum': 0.9, 'lr': 0.1}
    """
    if optimizer is None:
        return None
    given = options or {}
    if isinstance(optimizer, Optimizer):
        groups = tuple(ParameterGroup(g.names, {**g.options, **given}) for g in _groups(optimizer, module))
        cls, merged = type(optimizer), groups[0].options
    else:
        cls, found = _class_and_options(optimizer)
        groups, merged = (), {**found, **given}
    known = inspect.signature(cls).parameters
    for name in merged:
        if name not in known:
            raise BaechiError(
                "B704",
                f"{cls.__name__} has no option '{name}'",
                help="options: " + ", ".join(k for k in known if k != "params"),
            )
    one_for_all = len(groups) == 1 and groups[0].names in ((), _names(module))
    return OptimizerSpec(cls, merged, () if one_for_all else groups)


def _class_and_options(optimizer: Any) -> tuple[type[Optimizer], Mapping[str, Any]]:
    if isinstance(optimizer, str):
        if optimizer.lower() not in NAMES:
            raise BaechiError("B704", f"no optimiser '{optimizer}'", help="one of " + ", ".join(NAMES) + ", or a class")
        return NAMES[optimizer.lower()]
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        return optimizer, {}
    raise BaechiError("B704", f"{optimizer!r} is no optimiser", help="give a torch.optim class, an instance or a name")


def _groups(optimizer: Optimizer, module: nn.Module | None) -> list[ParameterGroup]:
    """The groups of an instance; one without names when it was made for another module."""
    known = inspect.signature(type(optimizer)).parameters
    options = [{k: v for k, v in g.items() if k in known and k != "params"} for g in optimizer.param_groups]
    names = {id(p): name for name, p in module.named_parameters()} if module is not None else {}
    members = [[names.get(id(p)) for p in g["params"]] for g in optimizer.param_groups]
    if any(name is not None for group in members for name in group):
        found = zip(members, optimizer.param_groups, options, strict=True)
        return [ParameterGroup(_known(group, g["params"]), o) for group, g, o in found]
    if any(o != options[0] for o in options):
        raise BaechiError(
            "B704",
            "the parameter groups of the optimiser have different options, and its parameters are not the module's",
            help="make the optimiser for the module that is placed",
        )
    return [ParameterGroup((), options[0])]


def _known(names: Sequence[str | None], parameters: Sequence[Tensor]) -> tuple[str, ...]:
    for name, parameter in zip(names, parameters, strict=True):
        if name is None:
            raise BaechiError(
                "B704",
                f"the optimiser updates a parameter of shape {list(parameter.shape)} that the module does not have",
                help="give an optimiser of the module's own parameters",
            )
    return tuple(name for name in names if name is not None)


def _names(module: nn.Module | None) -> tuple[str, ...]:
    return tuple(name for name, _ in module.named_parameters()) if module is not None else ()


def state_bytes(spec: OptimizerSpec, parameter: Tensor) -> int:
    """Bytes that the optimiser keeps for a parameter from step to step, step counters left out.

    Those of SGD, Adam, AdamW and RMSProp are known; any other class takes one step on a small
    parameter and tells.

    Raises:
        BaechiError: B704 when the class cannot step one parameter alone.
    """
    copies = _known_copies(spec)
    if copies is not None:
        return copies * parameter.numel() * parameter.element_size()
    shape = tuple(parameter.shape)
    options = tuple(sorted((k, repr(v)) for k, v in spec.options.items()))
    small = _SIDES[: len(shape)]
    total = 0
    for sides, itemsize in _measured(_Hashed(spec, options), small, parameter.dtype):
        numel = 1
        for side in sides:
            numel *= shape[small.index(side)] if side in small else side
        total += numel * itemsize
    return total


def _known_copies(spec: OptimizerSpec) -> int | None:
    options = spec.options
    if spec.cls is SGD:
        return int(bool(options.get("momentum", 0)))
    if spec.cls in (Adam, AdamW):
        return 2 + int(bool(options.get("amsgrad", False)))
    if spec.cls is RMSprop:
        return 1 + int(bool(options.get("momentum", 0))) + int(bool(options.get("centered", False)))
    return None


class _Hashed:
    """An optimiser spec that a cache can hold: equal options are equal."""

    def __init__(self, spec: OptimizerSpec, options: tuple[tuple[str, str], ...]) -> None:
        self.spec, self.identity = spec, (spec.cls, options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@lru_cache(maxsize=256)
def _measured(hashed: _Hashed, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[tuple[tuple[int, ...], int], ...]:
    spec = hashed.spec
    parameter = torch.nn.Parameter(torch.ones(shape, dtype=dtype, device="cpu"))
    parameter.grad = torch.full_like(parameter, 0.5)
    try:
        optimizer = spec.cls([parameter], **spec.options)
        optimizer.step()
    except (RuntimeError, TypeError, ValueError) as error:
        raise BaechiError(
            "B704",
            f"{spec.cls.__name__} cannot update a parameter with {len(shape)} dimensions: {error}",
            help="baechi needs an optimiser that steps each parameter alone",
        ) from error
    found = [v for state in optimizer.state.values() for v in _tensors(state)]
    if not shape:
        return tuple((tuple(t.shape), t.element_size()) for t in found if t.dtype == dtype)
    return tuple((tuple(t.shape), t.element_size()) for t in found if t.dim())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in _tensors(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in _tensors(v)]
    return []


def update_cost(spec: OptimizerSpec, parameter: Tensor) -> tuple[float, int, int]:
    """FLOPs, moved bytes and temporary bytes of one update.

    Streams of elements: the gradient and the parameter read, the parameter written, each state
    read and written (Adam: 7); about five operations per state element and two per parameter.
    Temporaries: Adam and AdamW hold two copies while they divide, RMSProp one, SGD none; other
    classes count one copy.
    """
    nbytes = parameter.numel() * parameter.element_size()
    states = state_bytes(spec, parameter)
    flops = 2.0 * parameter.numel() + 5.0 * states / parameter.element_size()
    return flops, 3 * nbytes + 2 * states, _TEMPORARIES.get(spec.cls, 1) * nbytes
