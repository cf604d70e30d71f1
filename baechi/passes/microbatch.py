"""Micro-batches of a graph of costs: the step as copies that share what persists.

For a captured model the frontend unrolls the traced code itself; a file holds costs alone, so the
copies' costs follow from an assumption.
"""

from collections.abc import Iterator
from dataclasses import replace

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor

__all__ = ["microbatches"]

_STATE = ("buffer", "constant", "parameter")


def microbatches(graph: Graph, count: int) -> Graph:
    """Unroll a step into `count` copies, one for each micro-batch.

    Assumed is that costs grow with the batch and nothing else: a copy has 1 / `count` of an op's seconds,
    FLOPs, moved and temporary bytes and of its tensors' bytes and declared transfer seconds. What persists is
    held once, by the first copy; parameters, buffers, constants and updates stay single, and an update reads the
    gradients of all copies, whose parts add up to one. Copies of an op share its colocation group,
    an op without one gets one; copy ``k`` of ``name`` is called ``name@k``.

    Args:
        graph: forward and backward ops, with or without updates.
        count: number of micro-batches, at least 1; 1 gives the graph itself.

    Raises:
        BaechiError: B102 when `count` is below 1.

    Example:
        >>> a = Op("a", "node", outputs=(Tensor("x", 8),), seconds=4.0, persistent_bytes=6)
        >>> unrolled = microbatches(Graph((a, Op("b", "update", ("x",), phase="update"))), 2)
        >>> [(op.name, op.inputs, op.seconds, op.persistent_bytes, op.group) for op in unrolled.ops]
        [('a@0', (), 2.0, 6, 'a@'), ('a@1', (), 2.0, 0, 'a@'), ('b', ('x@0', 'x@1'), None, 0, None)]
    """
    if count < 1:
        raise BaechiError("B102", f"{count} is no number of micro-batches", help="a whole number from 1 on")
    if count == 1:
        return graph
    unroll = _Unroll(graph, count)
    first = [op for op in graph.ops if not unroll.copied(op) and op.phase != "update"]
    last = [op for op in graph.ops if op.phase == "update"]
    copies = (unroll.copy(op, k) for k in range(count) for op in graph.ops if unroll.copied(op))
    return graph.with_ops((*map(unroll.single, first), *copies, *map(unroll.single, last)))


class _Unroll:
    """How the records of the one step become those of the many."""

    def __init__(self, graph: Graph, count: int) -> None:
        self.graph, self.count = graph, count
        self.groups = {op.group for op in graph.ops}

    def copied(self, op: Op) -> bool:
        return op.phase != "update" and op.kind not in _STATE

    def copy(self, op: Op, k: int) -> Op:
        return replace(
            op,
            name=f"{op.name}@{k}",
            inputs=tuple(self._tensor(name, k) for name in op.inputs),
            outputs=tuple(self._part(t, k) for t in op.outputs),
            after=tuple(self._op(name, k) for name in op.after),
            flops=op.flops / self.count,
            moved_bytes=_share(op.moved_bytes, self.count),
            temp_bytes=_share(op.temp_bytes, self.count),
            persistent_bytes=op.persistent_bytes if k == 0 else 0,
            seconds=None if op.seconds is None else op.seconds / self.count,
            host_seconds=None if op.host_seconds is None else op.host_seconds / self.count,
            group=op.group or self._own_group(op.name),
            forward=self._op(op.forward, k) if op.forward in self.graph.op else op.forward,
            key="",  # a measured time is that of the whole batch
            copy=k,
        )

    def single(self, op: Op) -> Op:
        """An op that stays single reads what all copies make."""
        outputs = tuple(replace(t, alias_of=t.alias_of and self._tensor(t.alias_of, 0)) for t in op.outputs)
        forward = self._op(op.forward, 0) if op.forward in self.graph.op else op.forward
        inputs = tuple(name for t in op.inputs for name in self._all_tensors(t))
        after = tuple(name for other in op.after for name in self._all_ops(other))
        return replace(op, inputs=inputs, outputs=outputs, after=after, forward=forward)

    def _part(self, tensor: Tensor, k: int) -> Tensor:
        return replace(
            tensor,
            name=self._tensor(tensor.name, k),
            nbytes=_share(tensor.nbytes, self.count),
            shape=(),
            alias_of=tensor.alias_of and self._tensor(tensor.alias_of, k),
            held=tensor.held // self.count,
            seconds=None if tensor.seconds is None else tensor.seconds / self.count,
        )

    def _tensor(self, name: str, k: int) -> str:
        return f"{name}@{k}" if self.copied(self.graph.producer[name]) else name

    def _op(self, name: str, k: int) -> str:
        return f"{name}@{k}" if self.copied(self.graph.op[name]) else name

    def _all_tensors(self, name: str) -> Iterator[str]:
        yield from dict.fromkeys(self._tensor(name, k) for k in range(self.count))

    def _all_ops(self, name: str) -> Iterator[str]:
        yield from dict.fromkeys(self._op(name, k) for k in range(self.count))

    def _own_group(self, name: str) -> str:
        group = f"{name}@"
        while group in self.groups:
            group += "@"
        return group


def _share(nbytes: int, count: int) -> int:
    return -(-nbytes // count)
