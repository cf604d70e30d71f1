"""Repeated blocks: the equal layers that deep models are made of."""

import re
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.ir.graph import Graph

__all__ = ["Repeats", "repeats"]

Ints = NDArray[Any]

_STATE = ("buffer", "parameter")
_INDEXED = re.compile(r"(?:^|(?<=\.))(\d+)(?:\.|$)")


class Repeats(NamedTuple):
    """Which block an op is in, and where in it.

    Attributes:
        block: (ops,) number of the block, or -1.
        part: (ops,) number of the block's submodule, the same in all equal blocks, or -1.
        piece: (ops,) the same for the innermost module.
        kind: (blocks,) equal for equal blocks.
    """

    block: Ints
    part: Ints
    piece: Ints
    kind: Ints


def repeats(graph: Graph) -> Repeats | None:
    """Find blocks that occur at least twice, by the index in their ops' module paths.

    Blocks ``encoder.layers.0`` and ``encoder.layers.1`` are equal when their forward ops have the
    same kinds in the same submodules. Backward and update ops belong to the block of their twin, a
    parameter to that of its first reader, and a colocation group to the one block that it touches.

    Returns:
        None when nothing is repeated.

    Example:
        >>> from baechi.ir.op import Op
        >>> ops = (Op(f"mm{k}", "mm", module=f"layers.{k}.proj") for k in range(3))
        >>> repeats(Graph((*ops, Op("head", "mm", module="head")))).block.tolist()
        [0, 1, 2, -1]
    """
    places = [_place(op.module) for op in graph.ops]
    content: defaultdict[tuple[str, int], Counter[tuple[str, str]]] = defaultdict(Counter)
    for op, place in zip(graph.ops, places, strict=True):
        if place is not None and op.phase == "forward":
            content[place[:2]][place[2], op.kind] += 1
    signature = {block: (block[0], frozenset(inside.items())) for block, inside in content.items()}
    times = Counter(signature.values())
    kinds = {one: k for k, one in enumerate(one for one, count in times.items() if count > 1)}
    number = {block: k for k, block in enumerate(block for block in content if signature[block] in kinds)}
    if not number:
        return None
    _spread(graph, places)
    inner = {one: k for k, one in enumerate(sorted({p[2] for p in places if p is not None}))}
    outer = {one: k for k, one in enumerate(sorted({rest.partition(".")[0] for rest in inner}))}
    known = [place if place is not None and place[:2] in number else None for place in places]
    return Repeats(
        np.array([-1 if p is None else number[p[:2]] for p in known], np.int64),
        np.array([-1 if p is None else outer[p[2].partition(".")[0]] for p in known], np.int64),
        np.array([-1 if p is None else inner[p[2]] for p in known], np.int64),
        np.array([kinds[signature[block]] for block in number], np.int64),
    )


Place = tuple[str, int, str]
"""What comes before the first index in a module path, the index, and what comes after it."""


def _place(module: str) -> Place | None:
    found = _INDEXED.search(module)
    return None if found is None else (module[: found.start()], int(found[1]), module[found.end() :])


def _spread(graph: Graph, places: list[Place | None]) -> None:
    """Give ops without a module the place of their twin or group, and parameters that of their first reader."""
    index = {op.name: i for i, op in enumerate(graph.ops)}
    for i in reversed(graph.order):
        op = graph.ops[i]
        if op.module:
            continue
        if op.forward in index:
            places[i] = places[index[op.forward]]
        if places[i] is None and op.kind in _STATE:
            readers = (index[reader.name] for t in op.outputs for reader in graph.readers[t.name])
            places[i] = next((places[r] for r in readers if places[r] is not None), None)
    for ops in graph.groups.values():
        members = [index[op.name] for op in ops]
        there = dict.fromkeys(places[i] for i in members if places[i] is not None)
        blocks = {place[:2] for place in there if place is not None}
        for i in members if len(members) > 1 else ():
            places[i] = next(iter(there)) if len(blocks) == 1 else None
