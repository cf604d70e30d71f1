"""One optimiser for each parameter, run where the plan puts its update."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import OptimizerSpec, ParameterGroup

__all__ = ["Optimizers"]


class Optimizers:
    """The update ops of a step as functions of the gradient.

    A torch optimiser's rule is element by element, so one instance for each parameter gives
    bitwise the numbers of one instance for all.

    Args:
        spec: what to make for each parameter.
        parameters: by name; those that are updated here.

    Raises:
        BaechiError: B602 when the optimiser evaluates the loss itself.
    """

    def __init__(self, spec: OptimizerSpec, parameters: Mapping[str, torch.Tensor]) -> None:
        self._spec = spec
        self._step = _step_of(spec.cls)
        self._parameters = dict(parameters)
        self._optimizers = {name: _make(spec, name, p) for name, p in parameters.items()}
        self._one_by_one()

    def _one_by_one(self) -> None:
        """Lists of one tensor gain nothing from torch's list kernels."""
        for group in self.groups():
            if "foreach" in group and not group.get("fused"):
                group["foreach"] = False

    def update(self, name: str) -> Callable[[torch.Tensor], None]:
        """What updates one parameter, given its gradient."""
        parameter, optimizer, step = self._parameters[name], self._optimizers[name], self._step

        def update(gradient: torch.Tensor) -> None:
            parameter.grad = gradient
            step(optimizer)
            parameter.grad = None

        return update

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes of optimiser state by parameter name; none before the first step."""
        return {
            name: sum(v.untyped_storage().nbytes() for v in _state(o).values() if isinstance(v, torch.Tensor))
            for name, o in self._optimizers.items()
        }

    def state_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """The state as ``state_dict`` of the plain optimiser gives it.

        Args:
            names: the module's parameters in order, which are its one group when it has no others.
        """
        state: dict[int, dict[str, Any]] = {}
        groups = []
        for group in self._layout(names):
            numbers = list(range(len(state), len(state) + len(group.names)))
            state |= {i: self._copy(name) for i, name in zip(numbers, group.names, strict=True)}
            groups.append({**self._options(group), "params": numbers})
        return {"state": {i: values for i, values in state.items() if values}, "param_groups": groups}

    def load_state_dict(self, names: Sequence[str], saved: Mapping[str, Any]) -> None:
        """Take the state of the plain optimiser.

        Args:
            names: the module's parameters in order, which are its one group when it has no others.
            saved: what ``state_dict`` of the plain optimiser gave.

        Raises:
            BaechiError: B607 when it is for other groups or another number of parameters.
        """
        groups = [(i, group) for group in saved["param_groups"] for i in group["params"]]
        layout = self._layout(names)
        here, there = ([len(g) for g in sizes] for sizes in _members(layout, saved))
        if here != there:
            raise BaechiError(
                "B607", f"the optimiser state is for {_counted(there)} parameters, not for {_counted(here)}"
            )
        for name, (i, group) in zip((n for g in layout for n in g.names), groups, strict=True):
            if name in self._optimizers:
                state = {0: _cloned(saved["state"][i])} if i in saved["state"] else {}
                self._optimizers[name].load_state_dict({"state": state, "param_groups": [{**group, "params": [0]}]})
        self._one_by_one()

    def state_by_name(self) -> dict[str, dict[str, Any]]:
        """The state of each parameter's optimiser, not copied; empty before the first step."""
        return {name: _state(o) for name, o in self._optimizers.items()}

    def load_by_name(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take such a state, copied; a parameter that it does not name starts anew."""
        for name, optimizer in self._optimizers.items():
            own = {0: _cloned(state[name])} if state.get(name) else {}
            optimizer.load_state_dict({**optimizer.state_dict(), "state": own})
        self._one_by_one()

    def _layout(self, names: Sequence[str]) -> tuple[ParameterGroup, ...]:
        return self._spec.groups or (ParameterGroup(tuple(names), self._spec.options),)

    def _copy(self, name: str) -> dict[str, Any]:
        return _cloned(_state(self._optimizers[name])) if name in self._optimizers else {}

    def _options(self, group: ParameterGroup) -> dict[str, Any]:
        """The group's options now; those that it began with when none of its parameters is updated here."""
        here = (self._optimizers[name] for name in group.names if name in self._optimizers)
        found = next(here, None) or self._spec.cls([torch.zeros(1)], **group.options)
        options: dict[str, Any] = dict(found.state_dict()["param_groups"][0])
        return {**options, "foreach": group.options.get("foreach")} if "foreach" in options else options

    def groups(self) -> Iterable[dict[str, Any]]:
        """The options of each optimiser, to change a learning rate."""
        return (group for o in self._optimizers.values() for group in o.param_groups)


def _step_of(cls: type[torch.optim.Optimizer]) -> Callable[[torch.optim.Optimizer], Any]:
    """The step function; torch's own without the wrappers that cost more than a small update."""
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise BaechiError(
            "B602",
            f"{cls.__name__} evaluates the loss itself (a closure), which a captured step cannot do",
            help="use an optimiser that steps from gradients, such as torch.optim.AdamW",
        )
    return inspect.unwrap(cls.step) if cls.__module__.startswith("torch.optim.") else cls.step


def _make(spec: OptimizerSpec, name: str, parameter: torch.Tensor) -> torch.optim.Optimizer:
    own = spec.for_parameter(name)
    if own is None:
        raise BaechiError("B607", f"the optimiser has no parameter '{name}'")
    return own.cls([parameter], **own.options)


def _members(layout: Sequence[ParameterGroup], saved: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    return [group.names for group in layout], [group["params"] for group in saved["param_groups"]]


def _counted(sizes: Sequence[int]) -> str:
    return " + ".join(map(str, sizes))


def _state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return next(iter(optimizer.state.values()), {})


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
