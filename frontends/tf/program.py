"""A captured TensorFlow step: the IR graph and the GraphDef that carries it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from baechi.errors import BaechiError
from baechi.ir.graph import Graph

__all__ = ["TensorFlowProgram"]


@dataclass(frozen=True, eq=False)
class TensorFlowProgram:
    """One training step, captured.

    An op of the IR is named after the GraphDef node that it stands for; a tensor is named after its op,
    with ``:index`` behind it from the second result on. Ops of the graph, by `Op.kind`:

    - ``variable``: a captured resource; no inputs. Its tensor is the value before the step.
    - ``input``, ``constant``: what is there before the step begins.
    - otherwise the node's TensorFlow type, such as ``Conv2D`` or ``ResourceApplyAdam``.

    Args:
        graph: the IR.
        graph_def: the step as it will be run: one flat graph without devices, whose functions are those
            that could not be inlined.
        nodes: by op name, the GraphDef nodes that carry the op out; each node belongs to one op.
        tensors: by tensor name, ``node:index``; a variable's value, which no node makes, is left out.
        inputs: by position in the flattened ``(args, kwargs)``, the placeholder of an argument; None for
            what is no tensor or is not read.
        specs: by position, the type and shape of an argument; None for what is no tensor.
        captures: by placeholder, what the step captured: a resource handle or a plain tensor.
        variables: by placeholder of a resource, the name of its op in the IR.
        trained: by placeholder of a resource, the captured `tf.Variable`, where it was found.
        outputs: by position in the flattened results, ``node:index``; None for what is no tensor.
        fixed: by position in the flattened results, what is no tensor there.
        control_outputs: nodes that must have run when the step ends.
        arguments: the structure of ``(args, kwargs)``, for `tf.nest`.
        results: the structure of the results, for `tf.nest.pack_sequence_as`.
        given: by position in the flattened arguments, what is no tensor there.
        loss: position of the loss in the flattened results, when known.
        owner: what has to stay alive while the step may run: the step itself, its model.
    """

    graph: Graph
    graph_def: GraphDef
    nodes: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, str]
    inputs: tuple[str | None, ...]
    specs: tuple[tf.TensorSpec | None, ...]
    captures: Mapping[str, Any]
    variables: Mapping[str, str]
    trained: Mapping[str, Any]
    outputs: tuple[str | None, ...]
    fixed: Mapping[int, Any]
    control_outputs: tuple[str, ...]
    arguments: Any
    results: Any
    given: Mapping[int, Any] = field(default_factory=dict)
    loss: int | None = None
    owner: Any = None

    @cached_property
    def op_of(self) -> dict[str, str]:
        """By GraphDef node, the op that it belongs to."""
        return {node: op for op, nodes in self.nodes.items() for node in nodes}

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Any]:
        """Arguments of a call, by position as in `inputs`.

        Raises:
            BaechiError: B713 when they are not built as the captured ones were, or when what is no tensor
                is another value.
        """
        structure = (tuple(args), dict(kwargs or {}))
        try:
            tf.nest.assert_same_structure(self.arguments, structure)
        except (TypeError, ValueError) as error:
            raise BaechiError(
                "B713", f"the arguments are not built like the captured ones: {str(error).splitlines()[0]}"
            ) from None
        leaves = list(tf.nest.flatten(structure))
        for i, captured in self.given.items():
            if leaves[i] is not captured and leaves[i] != captured:
                raise BaechiError(
                    "B713",
                    f"argument {i} is {leaves[i]!r}, and the step was captured with {captured!r}",
                    help="what is no tensor is fixed in the plan: capture and place the step for this one",
                )
        return leaves

    def rebuild(self, outputs: Sequence[Any]) -> Any:
        """The step's results from the tensors of `outputs`, in their order, those of None left out."""
        values = iter(outputs)
        flat = [self.fixed.get(i) if ref is None else next(values) for i, ref in enumerate(self.outputs)]
        return tf.nest.pack_sequence_as(self.results, flat)
