"""Colocation: which ops have to share a device, and which ones had better."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.passes.clusters import Clusters
from baechi.passes.storage import storage

__all__ = ["Colocate", "colocate"]

_STATE = ("buffer", "parameter")
_WRITERS = ("assign", "update")

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Colocate:
    """Put what cannot be separated into one group; the options add what is better kept together.

    Args:
        gradient: the op that makes a parameter's gradient joins the parameter when its update is
            the only reader.
        aliases: an op that only views its one input joins the op that made it.
        twins: a backward op joins the forward op that it belongs to.
    """

    name: ClassVar[str] = "colocate"
    gradient: bool = False
    aliases: bool = False
    twins: bool = False

    def __call__(self, graph: Graph) -> Graph:
        return colocate(graph, gradient=self.gradient, aliases=self.aliases, twins=self.twins)


def colocate(graph: Graph, *, gradient: bool = False, aliases: bool = False, twins: bool = False) -> Graph:
    """Give every set of ops that shares a device one group, named after its first op.

    A parameter and its update, a buffer and its assignment always do, and so does whatever shares
    a group already. The options are those of `Colocate`.

    Example:
        >>> from baechi.ir.op import Tensor
        >>> w = Op("w", "parameter", outputs=(Tensor("w", 8),))
        >>> step = Op("step", "update", inputs=("w",), phase="update")
        >>> [op.group for op in colocate(Graph((w, step))).ops]
        ['w', 'w']
    """
    index = {op.name: i for i, op in enumerate(graph.ops)}
    clusters = Clusters(graph)
    rules = [(_state, True), (_gradients, gradient), (_aliases, aliases), (_twins, twins)]
    for rule, wanted in rules:
        if wanted:
            for a, b in rule(graph):
                clusters.union(index[a], index[b])
    return clusters.graph()


def _state(graph: Graph) -> Iterator[Pair]:
    bases = storage(graph)
    for op in graph.ops:
        if op.kind in _WRITERS:
            for name in op.inputs:
                owner = graph.producer[bases[name]]
                if owner.kind in _STATE:
                    yield op.name, owner.name


def _gradients(graph: Graph) -> Iterator[Pair]:
    for op in graph.ops:
        if op.kind == "update":
            for name in op.inputs:
                yield from _made_for(graph, op, name)


def _made_for(graph: Graph, reader: Op, tensor: str) -> Iterator[Pair]:
    """The op that makes `tensor`, and through views the one behind it, while nobody else reads them."""
    while True:
        source = graph.producer[tensor]
        alone = all(r is reader for t in source.outputs for r in graph.readers[t.name])
        if source.kind in _STATE or not alone:
            return
        yield reader.name, source.name
        if not _is_view(source):
            return
        reader, tensor = source, source.inputs[0]


def _aliases(graph: Graph) -> Iterator[Pair]:
    for op in graph.ops:
        if _is_view(op):
            yield op.name, graph.producer[op.inputs[0]].name


def _is_view(op: Op) -> bool:
    return len(op.inputs) == 1 and bool(op.outputs) and all(t.alias_of == op.inputs[0] for t in op.outputs)


def _twins(graph: Graph) -> Iterator[Pair]:
    for op in graph.ops:
        if op.phase == "backward" and op.forward in graph.op:
            yield op.name, op.forward
