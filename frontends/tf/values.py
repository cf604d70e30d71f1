"""Shapes and types of all that a flat graph computes, by TensorFlow's own shape inference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.frontends.tf.flat import Nodes

__all__ = ["Value", "Values", "infer", "sizes_of"]


class Value:
    """What is known of a tensor before it is computed.

    Args:
        shape: its dimensions, -1 where one is unknown; None when even their number is.
        dtype: its element type.

    Attributes:
        known: whether its size is.
        elements: how many, 0 when unknown.
        nbytes: its size; a handle, a variant and a string count as nothing.
        name: of the element type.
    """

    __slots__ = ("dtype", "elements", "known", "name", "nbytes", "shape")

    def __init__(self, shape: tuple[int, ...] | None, dtype: tf.DType) -> None:
        self.shape, self.dtype = shape, dtype
        self.known = shape is not None and -1 not in shape
        self.elements = math.prod(shape) if shape is not None and self.known else 0
        self.name, size = _kind(dtype)
        self.nbytes = self.elements * size


@cache
def _kind(dtype: tf.DType) -> tuple[str, int]:
    """Name and bytes of an element."""
    size = 0 if dtype in (tf.resource, tf.variant, tf.string) else int(dtype.size)
    return str(dtype.base_dtype.name), size


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
    """What a graph computes.

    Args:
        nodes: the graph.
        library: its functions.
        handles: by placeholder of a resource, what its variable holds.
        traced: the graph that was traced. What it knows is believed; nodes that it has not, from the
            bodies of functions, are inferred.
    """
    known = {op.name: op for op in traced.get_operations()} if traced is not None else {}
    inferred = {} if all(name in known for name in nodes) else _imported(nodes, library, handles)
    made: dict[str, tuple[Value, ...]] = {}
    stateful: dict[str, bool] = {}
    for name, node in nodes.items():
        op = known.get(name) or inferred[name]
        if node.op not in stateful:
            stateful[node.op] = bool(op.op_def.is_stateful) and name not in handles
        values = tuple(map(_value, op.outputs))
        if name in known and name in inferred and not all(v.known for v in values):
            values = tuple(v if v.known else _value(t) for v, t in zip(values, inferred[name].outputs, strict=True))
        made[name] = values
    return Values(made, frozenset(k for k, yes in stateful.items() if yes))


def _imported(nodes: Nodes, library: Any, handles: Mapping[str, tuple[tf.DType, tf.TensorShape]]) -> dict[str, Any]:
    """Operations by name, in a graph of their own."""
    graph_def = GraphDef(library=library)
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    for name, node in nodes.items():
        graph_def.node.append(_handle(name, *handles[name]) if name in handles else node)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    return {op.name: op for op in graph.get_operations()}


def sizes_of(shape: tf.TensorShape) -> tuple[int, ...] | None:
    """A shape as numbers, -1 for one that is not known."""
    return None if shape.rank is None else tuple(-1 if n is None else n for n in shape.as_list())


def _value(tensor: Any) -> Value:
    return Value(sizes_of(tensor.shape), tensor.dtype)


def _handle(name: str, dtype: tf.DType, shape: tf.TensorShape) -> NodeDef:
    node = NodeDef(name=name, op="VarHandleOp")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(shape.as_proto())
    node.attr["shared_name"].s = name.encode()
    return node
