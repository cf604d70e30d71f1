"""What an ATen call costs: FLOPs, bytes moved, and the key under which a measured time is filed."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import flop_registry

__all__ = [
    "arithmetic",
    "call_key",
    "dense_bytes",
    "flops",
    "is_scattered",
    "moved_bytes",
    "tensor_key",
    "writes",
]

aten = torch.ops.aten

# Only the rows that are asked for are read: the table itself is an argument, not traffic.
_LOOKUPS = {aten.embedding, aten.index, aten.index_select, aten.gather, aten.select_scatter}
_COPIES = {
    aten.clone, aten.copy, aten._to_copy, aten.cat, aten.stack, aten.full, aten.full_like, aten.zeros, aten.zeros_like,
    aten.ones, aten.ones_like, aten.arange, aten.scalar_tensor, aten.lift_fresh_copy, aten.constant_pad_nd,
    aten.slice_backward, aten.select_backward, aten.slice_scatter, aten.select_scatter, aten.new_zeros,
    aten.new_full, aten.new_ones, aten.embedding, aten.index, aten.index_select, aten.gather, aten.flip, aten.roll,
}  # fmt: skip
_EMPTY = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided, aten.empty_permuted}

_SHORT = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "b8",
}  # fmt: skip
_LEFT_OUT = ("device", "layout", "pin_memory")


def dense_bytes(tensor: Tensor) -> int:
    """Bytes of the distinct elements: a dimension of stride 0 (an expanded one) counts once.

    That is what a transfer has to move: the receiver expands again.
    """
    count = math.prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not n)
    return count * tensor.element_size()


def is_scattered(tensor: Tensor) -> bool:
    """Whether other elements lie between its own, as in a slice of each row.

    Example:
        >>> wide = torch.ones(2, 6)
        >>> is_scattered(wide[:, :3]), is_scattered(wide[:1, :3]), is_scattered(wide.t()), is_scattered(wide[0].expand(4, 6))
        (True, False, False, False)
    """
    if not tensor.numel():
        return False
    if tensor.is_conj() or tensor.is_neg():  # its memory is not its elements
        return True
    dense = 1
    for stride, n in sorted((s, n) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n != 1 and s):
        if stride != dense:
            return True
        dense *= n
    return False


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for v in value for t in _leaves(v)]
    return []


def _packet(node: fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", node.target)


def _val(argument: Any) -> Any:
    return fx.node.map_arg(argument, lambda n: n.meta["val"])


def flops(node: fx.Node) -> float:
    """Floating point operations of a call.

    Matrix products, convolutions and attention by the closed forms of torch's FLOP counter, other
    calls one operation per element of their larger side (a reduction: its input), copies none.
    """
    packet = _packet(node)
    formula: Callable[..., Any] | None = _ATTENTION.get(packet) or flop_registry.get(packet)
    args, kwargs, result = _val(node.args), _val(node.kwargs), node.meta["val"]
    if formula is not None:
        return float(formula(*args, **kwargs, out_val=result))
    if packet in _COPIES or packet in _EMPTY:
        return 0.0
    made = sum(t.numel() for t in _leaves(result))
    read = max((t.numel() for t in _leaves(list(args))), default=0)
    return float(max(made, read))


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, out_val: Any = None, **__: Any) -> float:
    batch, heads, rows, width = query.shape
    columns = key.shape[-2]
    return 2.0 * batch * heads * rows * columns * (width + value.shape[-1])


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> float:
    batch, heads, rows, width = query.shape
    columns = key.shape[-2]
    # The scores again, then the gradients of scores, values, queries and keys.
    return 2.0 * batch * heads * rows * columns * (3 * width + 2 * value.shape[-1])


_ATTENTION: dict[Any, Callable[..., float]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def writes(node: fx.Node) -> bool:
    """Whether a call changes one of its arguments; the traced step has no such call, an unrolled one has."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def moved_bytes(node: fx.Node) -> int:
    """Bytes that a call reads and writes: inputs and outputs; of a lookup only what it picks."""
    packet = _packet(node)
    if packet in _EMPTY:
        return 0
    read = _leaves([_val(n) for n in node.all_input_nodes])
    made = sum(dense_bytes(t) for t in _leaves(node.meta["val"]))
    if packet in _LOOKUPS:
        return made + made + sum(dense_bytes(t) for t in read[1:])
    return made + sum(dense_bytes(t) for t in read)


def arithmetic(node: fx.Node) -> str:
    """The element type that a call computes in: its first floating input's, or its result's."""
    candidates = [*_leaves([_val(n) for n in node.all_input_nodes]), *_leaves(node.meta["val"])]
    kind = next((t.dtype for t in candidates if t.is_floating_point()), None)
    if kind is None:
        kind = candidates[0].dtype if candidates else torch.float32
    return str(kind).removeprefix("torch.")


def tensor_key(tensor: Tensor) -> str:
    """A tensor in a key: ``f32[2,3]``, with its strides when it is not contiguous."""
    text = _SHORT.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    text += "[" + ",".join(map(str, tensor.shape)) + "]"
    return text if tensor.is_contiguous() else text + "s[" + ",".join(map(str, tensor.stride())) + "]"


def call_key(node: fx.Node) -> str:
    """Op, shapes, types, strides and plain arguments; equal calls have equal keys on any machine.

    Example: ``aten.mm.default(f32[2,3],f32[3,4]s[1,3])``.
    """
    parts = [_argument(a) for a in node.args]
    parts += [f"{k}={_argument(v)}" for k, v in sorted(node.kwargs.items()) if k not in _LEFT_OUT]
    return f"{node.target}({','.join(parts)})"


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        held = value.meta.get("val")
        return tensor_key(held) if isinstance(held, Tensor) else "[" + ",".join(map(tensor_key, _leaves(held))) + "]"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_argument, value)) + "]"
    return str(value)
