"""What a node costs: FLOPs, bytes moved, and the key under which a measured time is filed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from baechi.frontends.tf.values import Value

__all__ = ["COPIES", "Call", "arithmetic", "call_key", "flops", "moved_bytes", "temp_bytes", "value_key"]

COPIES = frozenset((
    "BroadcastTo", "Cast", "ConcatV2", "DiagPart", "ExpandDims", "Fill", "GatherNd", "GatherV2", "Identity", "MirrorPad",
    "MirrorPadGrad", "Pack", "Pad", "PadV2", "Placeholder", "PreventGradient", "Range", "ReadVariableOp", "Reshape",
    "ResourceGather", "ResourceGatherNd", "ReverseV2", "Roll", "ScatterNd", "Shape", "ShapeN", "Size", "Slice", "Split",
    "SplitV", "Squeeze", "StopGradient", "StridedSlice", "StridedSliceGrad", "TensorListGetItem", "TensorListSetItem",
    "TensorScatterUpdate", "Tile", "Transpose", "Unpack", "ZerosLike", "OnesLike", "AssignVariableOp", "SelectV2", "Rank",
))  # fmt: skip
"""Nodes that move elements and compute nothing."""

_FREE = frozenset((
    "Const", "EnsureShape", "ExpandDims", "Identity", "NoOp", "Placeholder", "PreventGradient", "Rank", "ReadVariableOp",
    "Reshape", "Shape", "ShapeN", "Size", "Squeeze", "StopGradient", "VariableShape", "BroadcastGradientArgs",
    "AssignVariableOp", "TensorListReserve", "EmptyTensorList",
))  # fmt: skip
"""Nodes that touch no element: a new view, a number, a buffer handed over."""

_LOOKUPS = frozenset(("GatherNd", "GatherV2", "ResourceGather", "ResourceGatherNd", "StridedSlice", "Slice"))
_SHORT = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32",
    "int16": "i16", "int8": "i8", "uint8": "u8", "bool": "b8",
}  # fmt: skip
_FLOATS = frozenset(("bfloat16", "float16", "float32", "float64"))
_NO_MATTER = frozenset((
    "_class", "_output_shapes", "_user_specified_name", "body", "branches", "cond", "container", "dtype", "else_branch",
    "output_shapes", "shared_name", "then_branch", "validate_shape", "N", "T", "Tidx", "Tdim", "Tindices", "Tshape",
    "Tparams", "Taxis", "Tperm", "Tmultiples", "index_type", "Index", "seed", "seed2", "out_type", "Tpaddings",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """A node with what it reads and makes.

    Args:
        node: its type and attributes.
        reads: its inputs; of a resource, what the variable holds.
        makes: its results.
        constants: by position of an input, the value of a small constant.
        writes: positions of the inputs whose variable it writes.
    """

    node: NodeDef
    reads: Sequence[Value]
    makes: Sequence[Value]
    constants: Mapping[int, str]
    writes: Sequence[int] = ()


def flops(call: Call) -> float:
    """Floating point operations.

    Matrix products and convolutions by their closed forms, two a multiply-and-add; other nodes one for each
    element of their larger side (a reduction: its input), copies none.
    """
    formula = _FORMULAS.get(call.node.op)
    if formula is not None:
        return float(formula(call))
    if call.node.op in COPIES or call.node.op in _FREE:
        return 0.0
    made = sum(v.elements for v in call.makes)
    return float(max([made, *(v.elements for v in call.reads)]))


def _matmul(call: Call) -> int:
    transposed = call.node.attr["transpose_a"].b
    return 2 * call.makes[0].elements * _at(call.reads[0], -2 if transposed else -1)


def _batch_matmul(call: Call) -> int:
    return 2 * call.makes[0].elements * _at(call.reads[0], -2 if call.node.attr["adj_x"].b else -1)


def _convolution(result: Value, weight: Value, outputs: int = 1) -> int:
    """Each element of the result (forward) is a sum over the window and its input features."""
    return 2 * result.elements * math.prod(weight.shape[:-outputs] if weight.shape else ())


def _conv(call: Call) -> int:
    return _convolution(call.makes[0], call.reads[1])


def _conv_input(call: Call) -> int:
    return _convolution(call.reads[2], call.reads[1])


def _conv_filter(call: Call) -> int:
    return _convolution(call.reads[2], call.makes[0])


def _depthwise(call: Call) -> int:
    return _convolution(call.makes[0], call.reads[1], 2)


def _depthwise_input(call: Call) -> int:
    return _convolution(call.reads[2], call.reads[1], 2)


def _depthwise_filter(call: Call) -> int:
    return _convolution(call.reads[2], call.makes[0], 2)


def _einsum(call: Call) -> int:
    left, _, right = call.node.attr["equation"].s.decode().partition("->")
    terms = left.split(",")
    if "." in left or len(terms) < 2:
        return max(call.makes[0].elements, *(v.elements for v in call.reads))
    sizes = {c: n for term, v in zip(terms, call.reads, strict=True) for c, n in zip(term, v.shape or (), strict=False)}
    summed = len(set(sizes) - set(right)) > 0
    return math.prod(sizes.values()) * (2 if summed else 1)


def _lstm(call: Call) -> int:
    """BlockLSTM: for each step the product of (inputs, h) with the weights of four gates."""
    x, weight = call.reads[1], call.reads[4]
    return 2 * x.elements // max(_at(x, -1), 1) * weight.elements


_FORMULAS: Mapping[str, Callable[[Call], int]] = {
    "BatchMatMul": _batch_matmul,
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "BlockLSTM": _lstm,
    "BlockLSTMV2": _lstm,
    "BlockLSTMGrad": lambda call: 2 * _lstm(call),
    "BlockLSTMGradV2": lambda call: 2 * _lstm(call),
    "Conv2D": _conv,
    "Conv2DBackpropFilter": _conv_filter,
    "Conv2DBackpropInput": _conv_input,
    "Conv3D": _conv,
    "Conv3DBackpropFilterV2": _conv_filter,
    "Conv3DBackpropInputV2": _conv_input,
    "DepthwiseConv2dNative": _depthwise,
    "DepthwiseConv2dNativeBackpropFilter": _depthwise_filter,
    "DepthwiseConv2dNativeBackpropInput": _depthwise_input,
    "Einsum": _einsum,
    "MatMul": _matmul,
}


def _at(value: Value, position: int) -> int:
    shape = value.shape or ()
    return shape[position] if len(shape) >= abs(position) else 1


def moved_bytes(call: Call) -> int:
    """Bytes that a node reads and writes: inputs, results and variables; of a lookup only what it picks."""
    op = call.node.op
    if op in _FREE:
        return 0
    made = sum(v.nbytes for v in call.makes) + sum(call.reads[i].nbytes for i in call.writes)
    if op in _LOOKUPS:
        return 2 * made + sum(v.nbytes for v in call.reads[1:])
    return made + sum(v.nbytes for v in call.reads)


def temp_bytes(call: Call) -> int:
    """Bytes that a node's kernel needs beside its inputs and results: convolutions lay an operand out anew."""
    op = call.node.op
    if op in ("Conv2D", "Conv3D"):
        return max(call.reads[0].nbytes, call.makes[0].nbytes)
    if op in ("Conv2DBackpropInput", "Conv2DBackpropFilter", "Conv3DBackpropInputV2", "Conv3DBackpropFilterV2"):
        return max(v.nbytes for v in (*call.reads, *call.makes))
    return 0


def arithmetic(call: Call) -> str:
    """The element type that a node computes in: its first floating input's, or its result's."""
    names = [v.name for v in (*call.reads, *call.makes) if v.name not in ("resource", "variant")]
    return next((n for n in names if n in _FLOATS), names[0] if names else "float32")


def value_key(value: Value) -> str:
    """A tensor in a key: ``f32[2,3]``."""
    name = value.name
    shape = "?" if value.shape is None else ",".join("?" if n < 0 else str(n) for n in value.shape)
    return f"{_SHORT.get(name, name)}[{shape}]"


def call_key(call: Call) -> str:
    """Type, shapes, element types, small constants and attributes; equal calls have equal keys on any machine.

    Example: ``tf.MatMul(f32[2,3],f32[4,3],transpose_b=1)``.
    """
    parts = [call.constants.get(i) or value_key(v) for i, v in enumerate(call.reads)]
    for name in sorted(call.node.attr):
        if name not in _NO_MATTER and (text := _attribute(call.node.attr[name])):
            parts.append(f"{name}={text}")
    return f"tf.{call.node.op}({','.join(parts)})"


def _attribute(value: Any) -> str:
    which = value.WhichOneof("value")
    match which:
        case "b":
            return "1" if value.b else ""
        case "s":
            return str(value.s.decode(errors="replace"))
        case "i":
            return str(value.i)
        case "f":
            return f"{value.f:g}"
        case "type":
            name = tf.as_dtype(value.type).name
            return str(_SHORT.get(name, name))
        case "list":
            numbers = list(value.list.i) or [s.decode(errors="replace") for s in value.list.s]
            return "x".join(map(str, numbers))
    return ""
