"""Which ops had better sit together: what cannot be separated, and what a step would send for nothing."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import Ints, Problem
from baechi.cost.tensors import buckets
from baechi.ir.graph import Graph
from baechi.placers.clusters import first_members, roots, union

__all__ = ["Marks", "colocated", "marks_of"]

Bools = NDArray[np.bool_]

_STATE = frozenset(("buffer", "parameter"))
_GIVEN = _STATE | {"constant", "input", "tangent"}
_WRITERS = frozenset(("assign", "update"))


class Marks(NamedTuple):
    """What a graph says of its ops besides costs.

    Attributes:
        given: (ops,) what is there before the step: parameters, buffers, inputs, constants.
        state: (ops,) parameters and buffers.
        writes: (ops,) ops that write to parameters and buffers.
        updates: (ops,) the optimiser's ops.
        forward, backward: (ops,) ops of that phase.
        twin: (ops,) the forward op that an op belongs to, or -1.
    """

    given: Bools
    state: Bools
    writes: Bools
    updates: Bools
    forward: Bools
    backward: Bools
    twin: Ints


def marks_of(graph: Graph) -> Marks:
    """The marks of a graph's ops."""
    kinds, phases = [op.kind for op in graph.ops], [op.phase for op in graph.ops]
    return Marks(
        np.array([kind in _GIVEN for kind in kinds], np.bool_),
        np.array([kind in _STATE for kind in kinds], np.bool_),
        np.array([kind in _WRITERS for kind in kinds], np.bool_),
        np.array([kind == "update" for kind in kinds], np.bool_),
        np.array([phase == "forward" for phase in phases], np.bool_),
        np.array([phase == "backward" for phase in phases], np.bool_),
        np.array([graph.index.get(op.forward, -1) if op.forward else -1 for op in graph.ops], np.int64),
    )


class _Wires(NamedTuple):
    """Who makes and reads what, without tokens; `owner` is the op whose memory a tensor lies in."""

    out_ptr: Ints
    maker: Ints
    alias: Ints
    owner: Ints
    in_ptr: Ints
    in_t: Ints
    rd_ptr: Ints
    rd_op: Ints


def colocated(problem: Problem, marks: Marks) -> Ints:
    """(ops,) the first op of the set that each op is in.

    A parameter shares a device with its update, a buffer with what is assigned to it, the op that
    makes a gradient with the update if nobody else reads it, a view with the op that made what it
    views, a backward op with its twin, and the ops of a colocation group with each other.
    """
    c, a = problem.graph.columns, problem.arrays
    root = np.where(c.alias >= 0, c.alias, np.arange(len(c.alias)))
    for _ in range(len(root).bit_length()):
        root = root[root]
    rd_ptr, at = buckets(c.in_t, len(c.alias))
    wires = _Wires(c.out_ptr, c.maker, c.alias, c.maker[root], c.in_ptr, c.in_t, rd_ptr, c.reader[at])
    parent = first_members(a.group, len(a.group_ptr) - 1)
    _join(wires, marks, parent)
    return roots(parent)


@kernel
def _join(w: _Wires, m: Marks, parent: Ints) -> None:
    for i in range(len(parent)):
        for k in range(w.in_ptr[i], w.in_ptr[i + 1]):
            t = w.in_t[k]
            if m.writes[i] and m.state[w.owner[t]]:
                union(parent, i, w.owner[t])
            if m.updates[i]:
                _join_gradient(w, m, parent, i, t)
        if _is_view(w, i):
            union(parent, i, w.maker[w.in_t[w.in_ptr[i]]])
        if m.backward[i] and m.twin[i] >= 0:
            union(parent, i, m.twin[i])


@leaf
def _join_gradient(w: _Wires, m: Marks, parent: Ints, reader: int, tensor: int) -> None:
    """The op that makes `tensor`, and through views the one behind it, while nobody else reads them."""
    while True:
        source = w.maker[tensor]
        if m.state[source] or not _reads_alone(w, reader, source):
            return
        union(parent, reader, source)
        if not _is_view(w, source):
            return
        reader, tensor = source, w.in_t[w.in_ptr[source]]


@leaf
def _reads_alone(w: _Wires, reader: int, source: int) -> bool:
    others = 0
    for k in range(w.rd_ptr[w.out_ptr[source]], w.rd_ptr[w.out_ptr[source + 1]]):
        others += w.rd_op[k] != reader
    return others == 0


@leaf
def _is_view(w: _Wires, i: int) -> bool:
    if w.in_ptr[i + 1] != w.in_ptr[i] + 1 or w.out_ptr[i] == w.out_ptr[i + 1]:
        return False
    others = 0
    for t in range(w.out_ptr[i], w.out_ptr[i + 1]):
        others += w.alias[t] != w.in_t[w.in_ptr[i]]
    return others == 0
