"""What a tracer hands over: one functional graph of forward and backward, and what its ends mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx

__all__ = ["Joint", "Role", "RoleKind", "tidy"]

RoleKind = Literal["parameter", "buffer", "input", "tangent"]


@dataclass(frozen=True, slots=True)
class Role:
    """What a placeholder stands for.

    Attributes:
        kind: parameter, buffer, input or tangent.
        name: of the parameter or buffer.
        index: of the input among the tensor inputs, or of the output whose gradient it is.
    """

    kind: RoleKind
    name: str = ""
    index: int = 0


@dataclass(frozen=True, eq=False)
class Joint:
    """A traced step.

    Args:
        module: the functional graph.
        roles: of every placeholder.
        outputs: the nodes of the step's results.
        gradients: node by parameter name; without the parameters that get none.
        buffers: node of the new value, by the name of each buffer that the step writes.
        twin: by backward node, the forward node that it belongs to, where the trace tells.
        backward: the nodes of the backward pass.
    """

    module: fx.GraphModule
    roles: Mapping[fx.Node, Role]
    outputs: Sequence[fx.Node]
    gradients: Mapping[str, fx.Node]
    buffers: Mapping[str, fx.Node]
    twin: Mapping[fx.Node, fx.Node]
    backward: frozenset[fx.Node]


def tidy(module: fx.GraphModule, roles: Mapping[fx.Node, Role], names: Mapping[fx.Node, str]) -> None:
    """Drop what does nothing and unread inputs; name the placeholders after what they are.

    Nothing: dead nodes, assertions, and ``detach``, for the graph runs without autograd.
    """
    graph = module.graph
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.users and "_assert" in str(node.target):
            graph.erase_node(node)
        elif node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for node, role in roles.items():
        if role.kind == "input" and not node.users:
            graph.erase_node(node)
        else:
            node._rename(names[node])
            node.target = node.name
    # The default code object unpacks nested inputs; these are flat.
    graph.set_codegen(fx.graph.CodeGen())
    graph.lint()
    module.recompile()
