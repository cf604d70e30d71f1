"""A captured PyTorch step: the IR graph and the fx graph that carries it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import TreeSpec

from baechi.errors import BaechiError
from baechi.ir.graph import Graph

__all__ = ["OptimizerSpec", "ParameterGroup", "TorchProgram", "check_given"]


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters, by name, that are updated with the same options."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser as data: ``cls([parameter], **options)`` makes one for a parameter.

    Args:
        cls: of the optimiser.
        options: those of every parameter; with groups, of the first group.
        groups: the optimiser's own, in order; empty when all parameters of the module are one group.
            A parameter in none of several groups is not updated.
    """

    cls: type[torch.optim.Optimizer]
    options: Mapping[str, Any]
    groups: tuple[ParameterGroup, ...] = ()

    @property
    def name(self) -> str:
        """The class name in lower case, such as ``adamw``."""
        return self.cls.__name__.lower()

    def for_parameter(self, name: str) -> "OptimizerSpec | None":
        """What updates one parameter, without groups; None when nothing does."""
        if not self.groups:
            return self
        return next((OptimizerSpec(self.cls, g.options) for g in self.groups if name in g.names), None)

    def make(self, parameters: Mapping[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The plain optimiser of a module with these parameters, by name."""
        if not self.groups:
            return self.cls(list(parameters.values()), **self.options)
        groups = [{"params": [parameters[n] for n in g.names], **g.options} for g in self.groups]
        make: Any = self.cls  # the base class wants defaults, which its subclasses have
        optimizer: torch.optim.Optimizer = make(groups)
        return optimizer


@dataclass(frozen=True, eq=False)
class TorchProgram:
    """One training step of a module, captured.

    Op names are fx node names. A tensor is named after the fx node that holds it: the op's own
    node, or for an op with several results its ``getitem`` nodes (an unused result has no fx node
    and is named ``<op>.<index>``).

    Ops of the graph, by `Op.kind`:

    - ``parameter``, ``buffer``, ``input``, ``constant``, ``tangent``: no inputs; what they make
      is there before the step begins.
    - ``aten.…``: one ATen call and its ``getitem`` nodes.
    - ``assign``: writes a buffer's new value back; inputs: the new value and the buffer.
    - ``update``: one optimiser step of one parameter; inputs: its gradient and the parameter.

    Args:
        graph: the IR.
        module: the joint graph: placeholders are parameters, buffers, inputs and tangents.
        nodes: by op name, the fx nodes that carry the op out, in order (empty for the ops that
            are not ATen calls).
        values: by tensor name, the fx node that holds it.
        parameters: op name by parameter name; a tied parameter once, under its first name.
        buffers: op name by buffer name.
        constants: by op name, the tensor constants that the traced code made.
        inputs: by position in the flattened ``(args, kwargs)`` (and the target, when a loss was
            given), the op that stands for it; None for what is no tensor or is not read.
        tangents: ops that stand for the gradients of `outputs`; the backend feeds ones when a
            loss was given.
        outputs: tensor names of the flattened results; with a loss: the loss alone.
        fixed: by position in the flattened results, what is no tensor there.
        output_spec: how to rebuild the results from the flattened ones.
        gradients: tensor name by parameter name.
        buffer_updates: ``assign`` op by buffer name.
        updates: ``update`` op by parameter name; empty without an optimiser.
        optimizer: what the ``update`` ops do.
        has_loss: whether the step ends in a loss of its own.
        tied: first name by other name of a tied parameter or buffer.
        input_gradients: by position of an input that wants a gradient, the tensor that holds it, or
            None when nothing differentiable reads the input; empty with a loss.
        given: by position in the flattened inputs, what is no tensor there.
    """

    graph: Graph
    module: fx.GraphModule
    nodes: Mapping[str, tuple[fx.Node, ...]]
    values: Mapping[str, fx.Node]
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]
    constants: Mapping[str, torch.Tensor]
    inputs: tuple[str | None, ...]
    tangents: tuple[str, ...]
    outputs: tuple[str | None, ...]
    fixed: tuple[Any, ...]
    output_spec: TreeSpec
    gradients: Mapping[str, str]
    buffer_updates: Mapping[str, str]
    updates: Mapping[str, str]
    optimizer: OptimizerSpec | None
    has_loss: bool
    tied: Mapping[str, str]
    input_gradients: Mapping[int, str | None] = field(default_factory=dict)
    given: Mapping[int, Any] = field(default_factory=dict)

    def check_given(self, leaves: Sequence[Any]) -> None:
        """Refuse a plain input that is not the captured one; errors as `check_given`."""
        check_given(self.given, leaves)


def check_given(given: Mapping[int, Any], leaves: Sequence[Any]) -> None:
    """Refuse a plain input, such as a number or None, that is not the captured one: it is part of the graph.

    Args:
        given: what was captured, by position.
        leaves: the flattened inputs.

    Raises:
        BaechiError: B608.
    """
    for i, captured in given.items():
        plain = captured is None or isinstance(captured, bool | int | float | str | torch.dtype)
        if plain and not (type(leaves[i]) is type(captured) and leaves[i] == captured):
            found = type(leaves[i]).__name__ if isinstance(leaves[i], torch.Tensor) else repr(leaves[i])
            raise BaechiError(
                "B608",
                f"input {i} is {found}, and the step was captured with {captured!r}",
                help="what is no tensor is fixed in the plan: capture and place the step for this one",
            )
