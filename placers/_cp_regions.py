"""Parts of a graph with one entry and one exit: solved by themselves, they say how far apart the two are."""

from collections.abc import Iterator, Sequence
from typing import Any

import networkx
import numpy as np

from baechi.cost.problem import Arrays
from baechi.cost.tensors import buckets
from baechi.ir.cluster import UNLIMITED_BYTES

__all__ = ["part_of", "regions"]

_FEWEST = 3
_SOURCE, _SINK = -1, -2


def regions(a: Arrays, most: int) -> Iterator[list[int]]:
    """Ops of each region in topological order, entry first and exit last, the smaller regions first.

    Args:
        a: the problem.
        most: ops that a region may have.
    """
    graph: networkx.DiGraph[Any] = networkx.DiGraph()
    graph.add_nodes_from((_SOURCE, _SINK, *range(len(a.rank))))
    reader = np.repeat(np.arange(len(a.rank)), np.diff(a.in_ptr))
    graph.add_edges_from(zip(a.t_op[a.in_t].tolist(), reader.tolist(), strict=True))
    graph.add_edges_from([(_SOURCE, i) for i, k in graph.in_degree() if k == 0 and i >= 0])
    graph.add_edges_from([(i, _SINK) for i, k in graph.out_degree() if k == 0 and i >= 0])
    entry = networkx.immediate_dominators(graph, _SOURCE)
    exits = networkx.immediate_dominators(graph.reverse(copy=False), _SINK)
    found = []
    for u, v in exits.items():
        if u >= 0 and v is not None and v >= 0 and entry[v] == u:
            inner = networkx.descendants(graph, u) & networkx.ancestors(graph, v)
            if _FEWEST <= len(inner) <= most - 2:
                found.append(sorted([u, v, *inner], key=lambda i: int(a.rank[i])))
    yield from sorted(found, key=lambda ops: (len(ops), ops))


def part_of(a: Arrays, ops: Sequence[int]) -> Arrays:
    """The problem of some ops alone, without memory, which only makes it easier; other transfers leave lanes to these.

    Args:
        a: the whole problem.
        ops: in topological order.
    """
    number = np.full(len(a.rank), -1)
    number[ops] = np.arange(len(ops))
    tensors = [t for i in ops for t in range(int(a.out_ptr[i]), int(a.out_ptr[i + 1]))]
    renamed = np.full(len(a.t_op), -1)
    renamed[tensors] = np.arange(len(tensors))
    reads = [[int(renamed[t]) for t in a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]] if renamed[t] >= 0] for i in ops]
    in_ptr = np.cumsum([0, *(len(row) for row in reads)])
    in_t = np.array([t for row in reads for t in row], np.int64)
    reader = np.repeat(np.arange(len(ops)), np.diff(in_ptr))
    rd_ptr, at = buckets(in_t, len(tensors))
    _, group = np.unique(a.group[ops], return_inverse=True)
    group_ptr, group_op = buckets(group, int(group.max()) + 1)
    nothing, none = np.zeros(len(ops), np.int64), np.zeros(len(tensors), np.int64)
    return a._replace(
        ticks=a.ticks[ops],
        persistent=nothing,
        temp=nothing,
        rank=np.arange(len(ops)),
        order=np.arange(len(ops)),
        group=group.astype(np.int64),
        group_ptr=group_ptr,
        group_op=group_op,
        out_ptr=np.cumsum([0, *(int(a.out_ptr[i + 1] - a.out_ptr[i]) for i in ops)]),
        t_op=number[a.t_op[tensors]],
        t_bytes=a.t_bytes[tensors],
        t_size=none,
        t_base=none - 1,
        t_keep=none,
        t_ticks=a.t_ticks[tensors],
        in_ptr=in_ptr,
        in_t=in_t,
        rd_ptr=rd_ptr,
        rd_op=reader[at].astype(np.int64),
        cap=np.full(len(a.cap), UNLIMITED_BYTES),
    )
