"""The user's module as a function of flat tensors, and the module itself put back as it was."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from baechi.errors import BaechiError

__all__ = [
    "OUTPUT_LOSS",
    "Fixed",
    "Step",
    "Weights",
    "build_meta",
    "evaluate_loss",
    "find_weights",
    "to_fake",
    "unchanged",
]

OUTPUT_LOSS = "output"


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters and buffers of a module, each once.

    Args:
        parameters: by the first name of each.
        buffers: by the first name of each.
        tied: first name by other name of a parameter or buffer that has several.
        places: where a tensor hangs: the dict or list, the key in it, and the tensor's first name.
    """

    parameters: Mapping[str, nn.Parameter]
    buffers: Mapping[str, Tensor]
    tied: Mapping[str, str]
    places: Sequence[tuple[Any, Any, str]]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A leaf of the inputs that is no tensor, and so part of the program."""

    value: Any


def find_weights(module: nn.Module) -> Weights:
    """Collect a module's parameters and buffers, tied ones under their first name."""
    parameters = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    first = {id(t): name for name, t in (*buffers.items(), *parameters.items())}
    every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    tied = {name: first[id(t)] for name, t in every if first[id(t)] != name}
    places: list[tuple[Any, Any, str]] = []
    for owner in module.modules():
        containers: list[Any] = [owner._parameters, owner._buffers]
        containers += [v for v in vars(owner).values() if isinstance(v, list)]
        for container in containers:
            items = enumerate(container) if isinstance(container, list) else container.items()
            places += [(container, key, first[id(t)]) for key, t in items if id(t) in first]
    return Weights(parameters, buffers, tied, places)


def to_fake(tensor: Tensor) -> Tensor:
    """Under a fake mode, a fake CPU tensor of the same shape, strides, type and gradient flag."""
    fake = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake


@contextlib.contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Whatever happens inside, every attribute of the module and its children is put back."""
    saved = [(vars(owner), dict(vars(owner))) for owner in module.modules()]
    held = {id(v): v for _, values in saved for v in values.values() if type(v) in (dict, list, OrderedDict)}
    contents = [(container, container.copy()) for container in held.values()]
    try:
        yield
    finally:
        for container, content in [*contents, *saved]:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


class Step(nn.Module):
    """A module and its loss as a function of the tensors among its inputs.

    Its parameters are the user's, each once and under a name without dots: a tied parameter so
    has one gradient, summed by autograd itself in the order in which eager code sums it.

    Args:
        module: the user's module; its tensors are exchanged for this step's in every call.
        weights: what `find_weights` says of it.
        fakes: what stands for each parameter and buffer, by name.
        leaves: the flattened (args, kwargs, target), with None where a tensor goes.
        spec: how to rebuild (args, kwargs, target).
        loss: a callable, ``"output"`` or None.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Weights,
        fakes: Mapping[str, Tensor],
        leaves: Sequence[Any],
        spec: pytree.TreeSpec,
        loss: Callable[..., Any] | str | None,
        with_target: bool,
    ) -> None:
        super().__init__()
        self.names = {name: f"p{i}" for i, name in enumerate(weights.parameters)}
        self.names |= {name: f"b{i}" for i, name in enumerate(weights.buffers)}
        self._parameters.update({self.names[n]: fakes[n] for n in weights.parameters})  # type: ignore[misc]
        self._buffers.update({self.names[n]: fakes[n] for n in weights.buffers})
        # A list hides the module from nn.Module: its weights are this step's own.
        self.hidden = [module]
        self.weights = weights
        self.leaves, self.spec = leaves, spec
        self.loss, self.with_target = loss, with_target
        self.around: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self.output_spec: pytree.TreeSpec | None = None
        self.is_tensor: tuple[bool, ...] = ()
        self.fixed: tuple[Any, ...] = ()
        self.assigned: tuple[str, ...] = ()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the module, then the loss; the results are the tensors among the outputs, and the `assigned` buffers."""
        mine = {name: self._tensor(key) for name, key in self.names.items()}
        for container, key, name in self.weights.places:
            container[key] = mine[name]
        given = iter(tensors)
        leaves = [next(given) if leaf is None else leaf.value for leaf in self.leaves]
        args, kwargs, target = pytree.tree_unflatten(leaves, self.spec)
        with self.around:
            result = self.hidden[0](*args, **kwargs)
            if self.loss is not None:
                result = evaluate_loss(self.loss, result, target, with_target=self.with_target)
        assigned = self._assigned(mine)
        self.assigned = tuple(assigned)
        flat, self.output_spec = pytree.tree_flatten(result)
        self.is_tensor = tuple(isinstance(t, Tensor) for t in flat)
        self.fixed = tuple(None if isinstance(t, Tensor) else t for t in flat)
        results = [*(t for t in flat if isinstance(t, Tensor)), *assigned.values()]
        return _separate(results, (*tensors, *mine.values()))

    def _tensor(self, key: str) -> Tensor:
        found = self._parameters[key] if key in self._parameters else self._buffers[key]
        assert found is not None  # both dicts were filled from tensors
        return found

    def _assigned(self, mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The new values of buffers that the module assigned anew: results, for backward may read the old ones."""
        found = {}
        for container, key, name in self.weights.places:
            value = container[key]
            if name not in self.weights.buffers or value is mine[name]:
                continue
            if isinstance(value, Tensor) and value.shape == mine[name].shape:
                found[name] = value.detach().to(mine[name].dtype)
        return found


def evaluate_loss(loss: Callable[..., Any] | str, output: Any, target: Any, *, with_target: bool) -> Tensor:
    """The scalar that a step minimises.

    Args:
        loss: ``loss(output, target)``, ``loss(output)`` when there is no target, or ``"output"``.
        output: what the module returned.
        target: the second argument of the loss.
        with_target: whether the loss takes it.

    Raises:
        BaechiError: B704 when it is no scalar tensor that depends on a parameter.
    """
    if callable(loss):
        value = loss(output, target) if with_target else loss(output)
    elif loss == OUTPUT_LOSS:
        value = _own_loss(output)
    else:
        raise BaechiError(
            "B704", f"no loss {loss!r}", help=f"a callable, or '{OUTPUT_LOSS}' when the output is the loss"
        )
    if not isinstance(value, Tensor):
        raise BaechiError("B704", f"the loss is no tensor but a {type(value).__name__}")
    if value.numel() != 1:
        raise BaechiError(
            "B704",
            f"the loss is no scalar: its shape is {tuple(value.shape)}",
            help="reduce it, with mean() or sum()",
        )
    if not value.requires_grad:
        raise BaechiError(
            "B704",
            "the loss does not depend on any parameter that requires a gradient",
            help="call requires_grad_()",
        )
    return value


def _own_loss(output: Any) -> Any:
    found = getattr(output, "loss", None)
    if found is not None:
        return found
    return output[0] if isinstance(output, tuple | list) and output else output


def _separate(outputs: list[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copy an output that shares memory with an input or another output: each is a result of its own."""
    taken = {id(t) for t in others}
    separate = []
    for t in outputs:
        base = t if t._base is None else t._base
        separate.append(t.clone() if id(base) in taken or id(t) in taken else t)
        taken |= {id(base), id(t)}
    return tuple(separate)


def build_meta(factory: Callable[[], nn.Module]) -> nn.Module:
    """Build a module without memory for its weights.

    A module whose construction reads values is built on the CPU instead.

    Args:
        factory: makes the module.

    Example:
        >>> next(build_meta(lambda: nn.Linear(3, 4)).parameters()).device
        device(type='meta')
    """
    state = torch.get_rng_state()
    try:
        with torch.device("meta"):
            return factory()
    except (RuntimeError, NotImplementedError):
        torch.set_rng_state(state)
        return factory()
