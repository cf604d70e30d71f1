"""One optimiser for each parameter, run where the plan puts its update."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from baechi.errors import BaechiError
from baechi.frontends.pytorch.program import OptimizerSpec

__all__ = ["Optimizers"]


class Optimizers:
    """The update ops of a step as functions of the gradient.

    A torch optimiser's rule is element by element, so one instance for each parameter gives
    bitwise the numbers of one instance for all.

    Args:
        spec: what to make for each parameter.
        parameters: by name.

    Raises:
        BaechiError: B602 when the optimiser evaluates the loss itself.
    """

    def __init__(self, spec: OptimizerSpec, parameters: Mapping[str, torch.Tensor]) -> None:
        self._step = _step_of(spec.cls)
        self._parameters = dict(parameters)
        self._optimizers = {name: spec.cls([p], **spec.options) for name, p in parameters.items()}
        self._foreach = spec.options.get("foreach")
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
        """The state as ``torch.optim.Optimizer.state_dict`` of one optimiser over `names` gives it."""
        state = {i: _cloned(_state(self._optimizers[n])) for i, n in enumerate(names) if n in self._optimizers}
        first = next(iter(self._optimizers.values()))
        group = {**first.state_dict()["param_groups"][0], "params": list(range(len(names)))}
        if "foreach" in group:
            group["foreach"] = self._foreach
        return {"state": {i: values for i, values in state.items() if values}, "param_groups": [group]}

    def load_state_dict(self, names: Sequence[str], saved: Mapping[str, Any]) -> None:
        """Take the state of one torch optimiser over `names`.

        Raises:
            BaechiError: B607 when it is for another number of parameters.
        """
        groups = {i: group for group in saved["param_groups"] for i in group["params"]}
        if len(groups) != len(names):
            raise BaechiError("B607", f"the optimiser state is for {len(groups)} parameters, not for {len(names)}")
        for i, name in enumerate(names):
            if name in self._optimizers:
                state = {0: _cloned(saved["state"][i])} if i in saved["state"] else {}
                group = {**groups[i], "params": [0]}
                self._optimizers[name].load_state_dict({"state": state, "param_groups": [group]})
        self._one_by_one()

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


def _state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return next(iter(optimizer.state.values()), {})


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
