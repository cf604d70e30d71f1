"""The graph module by module, in layers, so that it can be drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from baechi.ir.graph import Graph
from baechi.report.graphs import Part, by_module, module_of

__all__ = ["Arrow", "Box", "Drawing", "drawing"]

_MOST_BOXES = 48
_MOST_DEPTH = 6
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A module in the drawing.

    Attributes:
        part: what it stands for.
        layer: how many modules are above it.
        place: from the left, in its layer; may be a half.
    """

    part: Part
    layer: int
    place: float


@dataclass(frozen=True, slots=True)
class Arrow:
    """What flows between two modules, in both directions.

    Attributes:
        source, to: indices of boxes, the earlier one first.
        nbytes: of all tensors.
        crosses: whether they are mostly on different devices.
    """

    source: int
    to: int
    nbytes: int
    crosses: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes and arrows.

    Attributes:
        boxes: in program order.
        arrows: from earlier to later boxes.
        layers: how many.
        width: the most boxes of a layer.
        hidden: modules that are left out: those with the fewest ops.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    layers: int
    width: int
    hidden: int


def drawing(graph: Graph, device: Mapping[str, str]) -> Drawing:
    """Lay out the graph at the finest depth of modules that still fits into a picture.

    A module's layer is the longest way to it (`networkx.topological_generations`), of the edges that go on in
    program order; inside a layer boxes are ordered by the mean place of their neighbours (Sugiyama, Tagawa and
    Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981).
    """
    depth = _finest(graph)
    whole = by_module(graph, depth, device)
    shown = _largest(whole)
    names = [name for name in _in_turn(graph, depth) if name in shown]
    number = {name: i for i, name in enumerate(names)}
    both = _forward(whole, number)
    layers = [list(generation) for generation in nx.topological_generations(both)]
    place = _places(both, layers)
    boxes = {i: Box(whole.nodes[names[i]]["part"], k, place[i]) for k, layer in enumerate(layers) for i in layer}
    return Drawing(
        tuple(boxes[i] for i in range(len(names))),
        tuple(
            Arrow(a, b, data["nbytes"], boxes[a].part.devices[:1] != boxes[b].part.devices[:1])
            for a, b, data in sorted(both.edges(data=True), key=lambda e: e[:2])
        ),
        len(layers),
        max(map(len, layers), default=0),
        len(whole) - len(names),
    )


def _finest(graph: Graph) -> int:
    deepest = max((op.module.count(".") + 1 for op in graph.ops), default=1)
    for depth in range(2, min(_MOST_DEPTH, deepest) + 1):
        if len(set(module_of(graph, depth).values())) > _MOST_BOXES:
            return depth - 1
    return min(_MOST_DEPTH, deepest)


def _in_turn(graph: Graph, depth: int) -> list[str]:
    """Modules in the order in which they first do something; one that only holds parameters comes where they are."""
    inside = module_of(graph, depth)
    doing = [op for op in graph.ops if op.inputs] + [op for op in graph.ops if not op.inputs]
    first: dict[str, int] = {}
    for op in doing:
        first.setdefault(inside[op.name], len(first))
    return list(first)


def _largest(whole: "nx.DiGraph[str]") -> set[str]:
    ops = {name: data["part"].ops for name, data in whole.nodes(data=True)}
    return set(sorted(ops, key=lambda name: -ops[name])[:_MOST_BOXES])


def _forward(whole: "nx.DiGraph[str]", number: Mapping[str, int]) -> "nx.DiGraph[int]":
    """Edges from earlier to later nodes; what flows back is added to what flows forth."""
    both: nx.DiGraph[int] = nx.DiGraph()
    both.add_nodes_from(range(len(number)))
    for source, to, data in whole.edges(data=True):
        if source in number and to in number:
            ends = sorted((number[source], number[to]))
            before = both.edges[ends[0], ends[1]]["nbytes"] if both.has_edge(*ends) else 0
            both.add_edge(ends[0], ends[1], nbytes=before + data["nbytes"])
    return both


def _places(both: "nx.DiGraph[int]", layers: list[list[int]]) -> dict[int, float]:
    widest = max(map(len, layers), default=0)
    place: dict[int, float] = {}
    for layer in layers:
        _spread(layer, place, widest)
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            near = both.predecessors if sweep % 2 == 0 else both.successors
            mean = {i: _mean([place[j] for j in near(i)], place[i]) for i in layer}
            layer.sort(key=lambda i, mean=mean: (mean[i], i))  # type: ignore[misc]
            _spread(layer, place, widest)
    return place


def _spread(layer: list[int], place: dict[int, float], widest: int) -> None:
    for k, i in enumerate(layer):
        place[i] = k + (widest - len(layer)) / 2


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
