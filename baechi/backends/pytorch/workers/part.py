"""What one worker is told: its share of a placed step, as data that travels between processes."""

import copyreg
import io
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from baechi.frontends.pytorch.program import OptimizerSpec

__all__ = ["Layout", "Part", "Wire", "pack", "unpack"]


class Layout(NamedTuple):
    """Shape, strides and type of a tensor as it is sent: without holes, a dimension of stride 0 once."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        """The layout of `tensor` when it has no holes, else that of a clone.

        Example:
            >>> Layout.of(torch.ones(2, 3).t()).stride, Layout.of(torch.ones(2, 3)[:, :2]).stride
            ((1, 3), (2, 1))
            >>> Layout.of(torch.ones(1, 3).expand(2, 3))
            Layout(shape=(2, 3), stride=(0, 1), dtype=torch.float32)
        """
        spread = tensor.stride()
        like = torch.empty_like(_once(tensor, spread), device="meta")
        return cls(tuple(tensor.shape), tuple(s and d for s, d in zip(spread, like.stride(), strict=True)), like.dtype)

    @property
    def numel(self) -> int:
        """Number of distinct elements."""
        return math.prod(n for n, stride in zip(self.shape, self.stride, strict=True) if stride or not n)

    def block(self, tensor: Tensor) -> Tensor:
        """The distinct elements of a tensor as one line, in the order of the strides: its own memory where it can be."""
        once = _once(tensor, self.stride)
        if once.stride() != self.stride or once.is_conj() or once.is_neg():  # its memory is not its elements
            dense = torch.empty_strided(once.shape, self.stride, dtype=self.dtype, device=once.device)
            once = dense.copy_(once)
        return once.as_strided((self.numel,), (1,))

    def tensor(self, block: Tensor) -> Tensor:
        """The tensor of which `block` made this line."""
        return block.as_strided(self.shape, self.stride)


def _once(tensor: Tensor, stride: Sequence[int]) -> Tensor:
    """A tensor without what its dimensions of stride 0 repeat."""
    return tensor[tuple(slice(None if step else 1) for step in stride)]


@dataclass(frozen=True, slots=True)
class Wire:
    """A transfer that one end of it is here; `peer` is the rank of the other end."""

    tensor: str
    peer: int
    layout: Layout


@dataclass(frozen=True, eq=False)
class Part:
    """The share of one device in a step.

    Args:
        device: its name in the plan.
        rank: of its worker; `ranks` those of all devices.
        place: the torch device that it is on its own machine.
        threads: processor threads of one op.
        cores: the first core that is its own, and how many the devices of its machine take together.
        cap_bytes: its memory.
        text: source of ``run(VALUES, RESULTS)``.
        names: what the source calls; ATen ops and constants.
        filename: under which the source is compiled.
        lines: the first line of each op, and `ops` their names.
        pairs: (source, destination) ranks of all directions of the step, when all devices are GPUs.
        wires: all transfers from and to this device, by number.
        sources: by op, the layout of each value that is present before the step.
        parameters, buffers: op by name, of those that are here.
        owners: rank by name, of all parameters and buffers.
        constants: value by op.
        inputs: op by position in the flattened inputs, of those that are here.
        input_count: of all flattened inputs.
        given: what was captured as no tensor, by position.
        tangents: ops that are fed ones.
        loss: its tensor.
        results: the results that are made here: the loss, and gradients that are kept.
        gradients: tensor by parameter name, of those that are results and made here.
        updates: ``update`` op by parameter name, of those that are here.
        optimizer: what they do.
        tied: as in `TorchProgram`.
        draws: ranks of the first and of the last device that draw random numbers in a step.
        predicted_bytes: the peak that the plan predicts.
        traced: source of the same function that calls ``ENTER()``, ``LEAVE()`` and ``NEXT()`` for each op that it carries
            out, in the order of `ops` less `sources`; empty when nobody asked for it.
    """

    device: str
    rank: int
    ranks: Mapping[str, int]
    place: torch.device
    threads: int
    cores: tuple[int, int]
    cap_bytes: int
    text: str
    names: Mapping[str, Any]
    filename: str
    lines: tuple[int, ...]
    ops: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    wires: Mapping[int, Wire]
    sources: Mapping[str, Layout]
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]
    owners: Mapping[str, int]
    constants: Mapping[str, Tensor]
    inputs: Mapping[int, str]
    input_count: int
    given: Mapping[int, Any]
    tangents: tuple[str, ...]
    loss: str
    results: tuple[str, ...]
    gradients: Mapping[str, str]
    updates: Mapping[str, str]
    optimizer: OptimizerSpec | None
    tied: Mapping[str, str]
    draws: tuple[int, int] | None
    predicted_bytes: int
    traced: str = ""


def pack(part: Part) -> bytes:
    """The part as bytes, for `unpack` in another process of the same program."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, torch._ops.OpOverload: _reduce_op}
    pickler.dump(part)
    return buffer.getvalue()


def unpack(data: bytes) -> Part:
    """The part that was packed."""
    part: Part = pickle.loads(data)
    return part


def _reduce_op(op: torch._ops.OpOverload) -> tuple[Any, tuple[str, str]]:
    return _find_op, (op._schema.name, op._overloadname)


def _find_op(name: str, overload: str) -> torch._ops.OpOverload:
    namespace, _, short = name.partition("::")
    found: torch._ops.OpOverload = getattr(getattr(getattr(torch.ops, namespace), short), overload)
    return found
