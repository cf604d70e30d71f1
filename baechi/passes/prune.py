"""Drop what the step computes and nobody needs."""

from dataclasses import dataclass, replace
from typing import ClassVar

from baechi.ir.graph import Graph
from baechi.ir.op import Op

__all__ = ["Prune", "prune"]

_EFFECTS = ("assign", "update")


@dataclass(frozen=True, slots=True)
class Prune:
    """Drop every op that no result, no update and no persistent byte depends on."""

    name: ClassVar[str] = "prune"

    def __call__(self, graph: Graph) -> Graph:
        return prune(graph)


def prune(graph: Graph) -> Graph:
    """Drop every op that no result, no update and no persistent byte depends on.

    A graph that marks no result and updates nothing, such as a bare workload, is returned as it
    is: nothing says what it is for.

    Example:
        >>> from baechi.ir.op import Tensor
        >>> a = Op("a", "input", outputs=(Tensor("x", 8),))
        >>> b = Op("b", "relu", inputs=("x",), outputs=(Tensor("y", 8, keep=True),))
        >>> c = Op("c", "tanh", inputs=("x",), outputs=(Tensor("z", 8),))
        >>> [op.name for op in prune(Graph((a, b, c))).ops]
        ['a', 'b']
    """
    if not any(_is_result(op) for op in graph.ops):
        return graph
    needed = _needed(graph)
    if len(needed) == len(graph):
        return graph
    return graph.with_ops(_without_links(op, needed) for op in graph.ops if op.name in needed)


def _is_result(op: Op) -> bool:
    return op.kind in _EFFECTS or any(t.keep for t in op.outputs)


def _needed(graph: Graph) -> set[str]:
    stack = [op for op in graph.ops if _is_result(op) or op.persistent_bytes]
    needed = {op.name for op in stack}
    while stack:
        op = stack.pop()
        sources = [*op.inputs, *(t.alias_of for t in op.outputs if t.alias_of is not None)]
        for source in (graph.producer[name] for name in sources):
            if source.name not in needed:
                needed.add(source.name)
                stack.append(source)
    return needed


def _without_links(op: Op, needed: set[str]) -> Op:
    after = tuple(name for name in op.after if name in needed)
    forward = op.forward if op.forward in needed else None
    return op if (after, forward) == (op.after, op.forward) else replace(op, after=after, forward=forward)
