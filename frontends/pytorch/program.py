"""A captured PyTorch step: the IR graph and the fx graph that carries it out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import TreeSpec

from baechi.ir.graph import Graph

__all__ = ["OptimizerSpec", "TorchProgram"]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser as data: ``cls([parameter], **options)`` makes one for any parameter."""

    cls: type[torch.optim.Optimizer]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The class name in lower case, such as ``adamw``."""
        return self.cls.__name__.lower()


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
        tied: first name by other name of a tied parameter.
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
