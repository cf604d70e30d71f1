"""What a tracer hands over: one functional graph of forward and backward, and what its ends mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import fx

__all__ = ["UNMARKED", "Joint", "Mark", "Role", "RoleKind", "tidy"]

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


@dataclass(frozen=True, slots=True)
class Mark:
    """What else is known of a node of an unrolled step.

    Attributes:
        copy: the micro-batch that it works on; None for all.
        group: colocation group of its op.
        like: the traced node that it copies, whose costs it has.
        shares: the node whose memory its result is in, where the fake tensors do not say.
    """

    copy: int | None = None
    group: str | None = None
    like: fx.Node | None = None
    shares: fx.Node | None = None


UNMARKED = Mark()


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
        input_gradients: node by index among the tensor inputs, for those that want a gradient and get one.
        marks: by node, of an unrolled step.
    """

    module: fx.GraphModule
    roles: Mapping[fx.Node, Role]
    outputs: Sequence[fx.Node]
    gradients: Mapping[str, fx.Node]
    buffers: Mapping[str, fx.Node]
    twin: Mapping[fx.Node, fx.Node]
    backward: frozenset[fx.Node]
    input_gradients: Mapping[int, fx.Node] = field(default_factory=dict)
    marks: Mapping[fx.Node, Mark] = field(default_factory=dict)


def tidy(joint: Joint, names: Mapping[fx.Node, str]) -> Joint:
    """Drop what does nothing and unread inputs; name the placeholders after what they are.

    Nothing: dead nodes, assertions, a transpose of a transpose, and ``detach``, for the graph runs
    without autograd. A ``view`` becomes a ``reshape``, which takes any strides.

    Args:
        joint: a traced step; its module is changed in place.
        names: of the placeholders.
    """
    graph = joint.module.graph
    moved: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        same = _same(node)
        if same is not None:
            moved[node] = moved.get(same, same)
            node.replace_all_uses_with(moved[node])
        elif node.op == "call_function" and not node.users and "_assert" in str(node.target):
            graph.erase_node(node)
        elif node.target is torch.ops.aten.view.default:
            # Some kernels lay their result out otherwise than their shape rules say; what fits by the rules
            # has to be copied then, as eager code would.
            node.target = torch.ops.aten.reshape.default
    graph.eliminate_dead_code()
    for node, role in joint.roles.items():
        if role.kind == "input" and not node.users:
            graph.erase_node(node)
        else:
            node._rename(names[node])
            node.target = node.name
    # The default code object unpacks nested inputs; these are flat.
    graph.set_codegen(fx.graph.CodeGen())
    graph.lint()
    joint.module.recompile()
    return replace(
        joint,
        outputs=[moved.get(n, n) for n in joint.outputs],
        gradients={name: moved.get(n, n) for name, n in joint.gradients.items()},
        buffers={name: moved.get(n, n) for name, n in joint.buffers.items()},
        input_gradients={i: moved.get(n, n) for i, n in joint.input_gradients.items()},
    )


def _same(node: fx.Node) -> fx.Node | None:
    """The node that this one only repeats."""
    if node.target is torch.ops.aten.detach.default:
        return node.all_input_nodes[0]
    if node.target is torch.ops.aten.t.default:
        (base,) = node.all_input_nodes
        return base.all_input_nodes[0] if base.target is node.target else None
    return None
