"""A part of m-SCT's linear programme, written down as arrays and solved by GLOP's dual simplex."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baechi.placers.apart import call_solver

__all__ = ["Bounds", "Net", "make_net", "solve_rows"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LONGEST = 1000.0  # GLOP's tolerances are absolute: times are scaled so that the longest block takes this


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """A graph in topological order: k per node, (u, v, c) per edge, where each came from, and its blocks."""

    k: Floats
    u: Ints
    v: Ints
    c: Floats
    edge: Ints
    cut: Bools
    block: Ints
    forced: Bools

    def paths(self, y: Floats) -> tuple[Floats, Floats]:
        """Longest path through each edge and in each block, with communication c (1 - y)."""
        from baechi.placers import _paths

        c = self.c * (1.0 - y)
        head, tail = _paths.sweep(self.k, self.u, self.v, c, self.cut)
        through = head[self.u] + self.k[self.u] + c + np.where(self.cut[self.v], 0.0, tail[self.v])
        return through, self.most(head + tail)

    def most(self, times: Floats) -> Floats:
        """Largest of the nodes' times in each block."""
        found = np.zeros(self.block[-1] + 1 if len(self.block) else 0)
        np.maximum.at(found, self.block, times)
        return found


def make_net(k: Floats, u: Ints, v: Ints, c: Floats, edge: Ints) -> Net:
    from baechi.placers import _paths

    cut = _paths.find_cuts(len(k), u, v)
    outs, ins = np.bincount(u, minlength=len(k)), np.bincount(v, minlength=len(k))
    return Net(k, u, v, c, edge, cut, np.cumsum(cut), (outs[u] == 1) & (ins[v] == 1))


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Lower bounds on each node's head and tail, and on each block's w."""

    head: Floats
    tail: Floats
    w: Floats


def solve_rows(net: Net, low: Bounds, longest: Floats, edges: Ints, bound: Floats, y: Floats) -> None:
    """Solve the programme of some edges, which make up whole blocks; raise `bound` and set `y` there, in place.

    Every other edge and node counts only by the lower bounds on heads and tails, so the optimum never exceeds
    that of the full programme. Nothing changes when the solver gives up.

    Args:
        longest: float64[blocks], the longest path known in each block, for the scale.
    """
    rows = _Rows.of(net, low, edges)
    scale = _LONGEST / longest[rows.blocks].max()
    values = _minimum(net, low, rows, scale)
    if values is None:
        return
    w, found = np.split(values[len(rows.nodes) :], [len(rows.blocks)])
    bound[rows.blocks] = np.maximum(bound[rows.blocks], w / scale)
    y[rows.free] = found.clip(0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Variables: a start per node, w per block, y per free edge. Rows: see `_minimum`.

    Args:
        first: node that each node of `net` starts with, chains being one, after `delay`.
        edges: edges between two chains.
        ends: nodes that no edge here leaves.
    """

    nodes: Ints
    blocks: Ints
    free: Ints
    edges: Ints
    ends: Ints
    first: Ints
    delay: Floats

    @classmethod
    def of(cls, net: Net, low: Bounds, edges: Ints) -> "_Rows":
        from baechi.placers import _paths

        chained = np.zeros(len(net.u), np.bool_)
        chained[edges] = net.forced[edges] & ~net.cut[net.v[edges]]
        first, delay = _paths.merge_chains(net.k, net.u, net.v, chained)
        u, v = net.u[edges], net.v[edges]
        touched = np.unique(np.concatenate((u, v[~net.cut[v]])))
        return cls(
            nodes=np.unique(first[touched]),
            blocks=np.unique(net.block[u]),
            free=edges[~net.forced[edges]],
            edges=edges[~chained[edges]],
            ends=np.setdiff1d(touched, u, assume_unique=False),
            first=first,
            delay=delay,
        )


def _minimum(net: Net, low: Bounds, rows: _Rows, scale: float) -> Floats | None:
    """One row for each edge, each end of a path, and each node with several choices::

    start_v - start_u + c y >= k_u + c        w - start_u >= tail_u        sum y <= 1
    """
    start = np.zeros(len(net.k), np.int64)
    start[rows.nodes] = np.arange(len(rows.nodes))
    start = start[rows.first]
    w = np.zeros(len(low.w), np.int64)
    w[rows.blocks] = len(rows.nodes) + np.arange(len(rows.blocks))
    y = np.full(len(net.u), -1)
    y[rows.free] = len(rows.nodes) + len(rows.blocks) + np.arange(len(rows.free))

    e, ends = rows.edges, rows.ends
    u, v = net.u[e], net.v[e]
    leaves = net.cut[v]
    least = np.where(net.forced[e], 0.0, net.c[e]) + net.k[u] + rows.delay[u] - np.where(leaves, 0.0, rows.delay[v])
    least = np.concatenate((least, rows.delay[ends] + low.tail[ends]))
    late = np.concatenate((np.where(leaves, w[net.block[u]], start[v]), w[net.block[ends]]))
    early = np.concatenate((start[u], start[ends]))
    row = np.arange(len(least))
    saves = np.flatnonzero((y[e] >= 0) & (net.c[e] > 0.0))
    parts = [
        (row, late, np.ones(len(row))),
        (row, early, -np.ones(len(row))),
        (saves, y[e[saves]], net.c[e[saves]] * scale),
    ]
    count = len(row)
    for end in (net.u[rows.free], net.v[rows.free]):
        several = np.bincount(end, minlength=len(net.k)) > 1
        chosen = several[end]
        parts.append((count + (np.cumsum(several) - 1)[end[chosen]], y[rows.free[chosen]], np.ones(chosen.sum())))
        count += int(several.sum())
    entries = [np.concatenate(part) for part in zip(*parts, strict=True)]
    order = np.lexsort((entries[1], entries[0]))
    costs = np.zeros(len(rows.nodes) + len(rows.blocks) + len(rows.free))
    costs[w[rows.blocks]] = 1.0
    found: Floats | None = call_solver(
        "baechi.placers._glop:minimize",
        lower=np.concatenate((low.head[rows.nodes] * scale, low.w[rows.blocks] * scale, np.zeros(len(rows.free)))),
        upper=np.concatenate((np.full(len(rows.nodes) + len(rows.blocks), np.inf), np.ones(len(rows.free)))),
        costs=costs,
        least=np.concatenate((least * scale, np.full(count - len(row), -np.inf))),
        most=np.concatenate((np.full(len(row), np.inf), np.ones(count - len(row)))),
        entries=(entries[0][order], entries[1][order], entries[2][order].astype(np.float64)),
    )
    return found
