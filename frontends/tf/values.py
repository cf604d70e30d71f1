"""Shapes and types of all that a flat graph computes, by TensorFlow's own shape inference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.frontends.tf.flat import Nodes

__all__ = ["Value", "Values", "infer"]


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor before it is computed.

    Args:
        shape: its dimensions, -1 where one is unknown; None when even their number is.
        dtype: its element type.
    """

    shape: tuple[int, ...] | None
    dtype: tf.DType

    @property
    def known(self) -> bool:
        """Whether its size is."""
        return self.shape is not None and -1 not in self.shape

    @property
    def elements(self) -> int:
        """How many, 0 when unknown."""
        count = 1
        for n in self.shape or ():
            count *= n
        return count if self.known else 0

    @property
    def nbytes(self) -> int:
        """Its size; a handle, a variant and a string count as nothing."""
        return self.elements * _size(self.dtype)


def _size(dtype: tf.DType) -> int:
    return 0 if dtype in (tf.resource, tf.variant, tf.string) else int(dtype.size)


@dataclass(frozen=True, slots=True)
class Values:
    """What a graph computes.

    Args:
        made: by node, its results.
        stateful: node types that have an effect or a state.
    """

    made: dict[str, tuple[Value, ...]]
    stateful: frozenset[str]

    def __getitem__(self, reference: str) -> Value:
        name, _, index = reference.partition(":")
        return self.made[name][int(index or 0)]


def infer(
    nodes: Nodes, library: Any, handles: Mapping[str, tuple[tf.DType, tf.TensorShape]], traced: Any = None
) -> Values:
    """Infer what a graph computes.

    Args:
        nodes: the graph.
        library: its functions.
        handles: by placeholder of a resource, what its variable holds.
        traced: the graph that was traced; where it knows a shape that inference does not, it is believed.
    """
    graph_def = GraphDef(library=library)
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    for name, node in nodes.items():
        graph_def.node.append(_handle(name, *handles[name]) if name in handles else node)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    known = {op.name: op for op in traced.get_operations()} if traced is not None else {}
    made: dict[str, tuple[Value, ...]] = {}
    stateful: dict[str, bool] = {}
    for op in graph.get_operations():
        kind = nodes[op.name].op
        if kind not in stateful:
            stateful[kind] = bool(op.op_def.is_stateful) and op.name not in handles
        values = tuple(_value(t) for t in op.outputs)
        if not all(v.known for v in values) and op.name in known:
            pairs = zip(values, known[op.name].outputs, strict=True)
            values = tuple(v if v.known else _value(t) for v, t in pairs)
        made[op.name] = values
    return Values(made, frozenset(k for k, yes in stateful.items() if yes))


def _value(tensor: Any) -> Value:
    shape = tensor.shape
    sizes = None if shape.rank is None else tuple(-1 if n is None else int(n) for n in shape)
    return Value(sizes, tensor.dtype)


def _handle(name: str, dtype: tf.DType, shape: tf.TensorShape) -> NodeDef:
    node = NodeDef(name=name, op="VarHandleOp")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(shape.as_proto())
    node.attr["shared_name"].s = name.encode()
    return node
