"""Coarser and coarser views of a graph: which ops are placed together."""

from collections.abc import Iterable, Iterator

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import Arrays, Ints, Problem
from baechi.placers.clusters import find, first_members, roots, union
from baechi.placers.edges import Edges, edges_of

__all__ = ["levels"]

_REACH = 2.0  # how far apart the ops of a cluster may be in topological order, over its share of the ops


def levels(problem: Problem, sizes: Iterable[int] = (128, 32, 8)) -> Iterator[Ints]:
    """Labels of ops to be placed together, as for `Problem.with_groups`, a level for each size.

    Ops are joined along edges, those that are dearest to send along first (heavy-edge contraction),
    while no cluster has more than its share of the step's work and of its bytes. Each level joins
    clusters of the one before, so sizes should fall. O(E log E) for the first level, O(E) for each
    of the others.

    Args:
        problem: its colocation groups are where the first level starts.
        sizes: how many clusters of the largest size would fill one device.

    Yields:
        (ops,) labels.

    Source: Karypis and Kumar, "A fast and high quality multilevel scheme for partitioning irregular
    graphs" (SIAM J. Sci. Comput. 1998), the contraction by heavy edges.

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.models.graphs import chain
        >>> two = Cluster((Device("a", 1 << 40), Device("b", 1 << 40)))
        >>> [len(set(labels.tolist())) for labels in levels(Problem(chain(64), two), (8, 2))]
        [16, 4]
    """
    a = problem.arrays
    edges = edges_of(a)
    reader = np.repeat(np.arange(len(a.rank)), np.diff(edges.ptr))
    dearest = np.lexsort((a.rank[reader], -edges.ticks))
    parent = first_members(a.group, len(a.group_ptr) - 1)
    for size in sizes:
        _contract(a, edges, reader, dearest, parent, 1.0 / (size * len(a.cap)))
        yield roots(parent)


@kernel
def _contract(a: Arrays, e: Edges, reader: Ints, dearest: Ints, parent: Ints, share: float) -> None:
    """Join the ends of edges, in the order given, while a cluster stays within a share of work and bytes."""
    ops = len(parent)
    work, nbytes = np.zeros(ops, np.int64), np.zeros(ops, np.int64)
    for i in range(ops):
        root = find(parent, i)
        work[root] += a.ticks[i].min()
        nbytes[root] += a.persistent[i]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            nbytes[root] += a.t_size[t]
    most_work, most_nbytes = share * work.sum(), share * nbytes.sum()
    first, last = np.full(ops, ops), np.full(ops, -1)
    for i in range(ops):
        root = find(parent, i)
        first[root], last[root] = min(first[root], a.rank[i]), max(last[root], a.rank[i])
    reach = _REACH * share * ops
    for k in dearest:
        one, other = find(parent, reader[k]), find(parent, e.source[k])
        if one == other or work[one] + work[other] > most_work:
            continue
        low, high = min(first[one], first[other]), max(last[one], last[other])
        if high - low > max(reach, last[one] - first[one], last[other] - first[other]):
            continue
        if nbytes[one] > 0 and nbytes[other] > 0 and nbytes[one] + nbytes[other] > most_nbytes:
            continue
        root = union(parent, one, other)
        work[root] = work[one] + work[other]
        nbytes[root] = nbytes[one] + nbytes[other]
        first[root], last[root] = low, high
