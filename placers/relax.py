"""Favourite children: the linear programme of m-SCT, solved by growing a small part of it.

With y = 1 - x the programme asks how far fractional favourites shorten the longest path::

    min w   s_i + k_i + c_ij (1 - y_ij) <= s_j     for each edge
            s_i + k_i <= w,   s >= 0,   0 <= y <= 1
            sum_j y_ij <= 1                        one favourite child each
            sum_i y_ij <= 1                        one favourite parent each

(Jeon et al., "Baechi", section 2; Hanen and Munier 1995.) Five facts keep it small:

1. An edge that is its tail's only way out and its head's only way in is free: y = 1.
2. Each node's own row gives lower bounds on heads and tails in one sweep. An edge whose longest path, with
   every choice open, stays within the bound on w keeps y = 0 and leaves the programme.
3. A node on every path cuts the programme into blocks whose optima add up.
4. Any subset of the edge rows gives a lower bound on w. Once no path is longer than the subset's optimum,
   it is the optimum of all of them.
5. Deadlines (`_paths.relay`) find a y for the other edges, so that the subset that proves the optimum is small.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.placers._rows import Bounds, Net, make_net, solve_rows

__all__ = ["Favourites", "favourites"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LEAST_GROWTH = 300
_CLOSED = 1e-7  # relative gap at which a block counts as solved
_PASSES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Favourites:
    """What the relaxation prefers.

    Args:
        child: int64[n], each node's favourite child, or -1.
        parent: int64[n], the inverse: ``parent[child[i]] == i``.
        x: float64[m], the solution; an edge with x = 0 costs no communication.
        bound: lower bound on w, in ticks; the optimum when `gap` is 0.
        gap: the longest path under `x` over `bound`, less 1; 0 when the programme was solved.
    """

    child: Ints
    parent: Ints
    x: Floats
    bound: float
    gap: float


def favourites(
    ticks: Ints,
    src: Ints,
    dst: Ints,
    comm: Ints,
    *,
    threshold: float = 0.1,
    limit: int = 20_000,
    first_rows: int = 2000,
) -> Favourites:
    """Solve m-SCT's linear programme and round it to favourite children.

    The optimum is rarely unique. The one returned depends on the values alone, not on the order of the edges:
    nodes are numbered by Kahn's rule (first in, first out), edges sorted by that, rows chosen by the length of
    the longest path through them, the simplex method started cold, and no y is larger than the deadlines ask.
    What is left of a node's one child and one parent then goes to its edges with y > 0, in the order of
    (y, longest path, communication, -src, -dst), largest first: that shortens paths and lengthens none. Edges
    that no deadline presses keep x = 1: favouring them as well made m-SCT's plans longer on layered graphs.
    An edge is a favourite when x, rounded to nine digits, is under `threshold`; edges are accepted by
    (x, -comm, src, dst) while both ends are free, so that no node has two.

    A block that would need more than `limit` rows stays at the best y found by deadlines; `bound` is then
    the last one proved, and `gap` says how far `x` may be from it.

    Args:
        ticks: int64[n], processing time of each node.
        src: int64[m], tail of each edge; no edge twice.
        dst: int64[m], head of each edge.
        comm: int64[m], time to send along each edge, in ticks.
        threshold: 0.5 is the classical rounding, 0.1 the paper's.
        limit: most rows of one block, one for each edge.
        first_rows: rows a block starts from, or a twelfth of its edges if that is more.

    Raises:
        BaechiError: B207 when the edges form a cycle.

    Example:
        >>> ticks, ends = np.array([1, 2, 3]), (np.array([0, 0]), np.array([1, 2]))
        >>> found = favourites(ticks, *ends, np.array([4, 4]))
        >>> round(found.bound, 6), found.x.round(3).tolist()
        (5.5, [0.625, 0.375])
    """
    from baechi.placers import _paths

    order = np.lexsort((dst, src))
    position, done = _paths.topological(len(ticks), src[order], dst[order])
    if done < len(ticks):
        raise BaechiError("B207", "the graph has a cycle", help="favourite children need an acyclic graph")
    order = np.lexsort((position[dst], position[src]))
    k = np.empty(len(ticks))
    k[position] = ticks
    net = make_net(k, position[src[order]], position[dst[order]], comm[order].astype(np.float64), np.arange(len(src)))
    y, bound = _relax(net, limit, first_rows)
    y[net.c == 0] = 0.0
    through, _ = net.paths(y)
    pressed = y.round(9)
    by_need = np.lexsort((dst[order], src[order], -net.c, -through, -pressed))
    _paths.fill(by_need[pressed[by_need] > 0.0], net.u, net.v, y, len(k))
    _, longest = net.paths(y)
    x = np.empty(len(src))
    x[order] = (1.0 - y).clip(0.0, 1.0)
    rounded = x.round(9)
    by_x = np.lexsort((dst, src, -comm, rounded))
    child, parent = _paths.match(by_x[rounded[by_x] < threshold], src, dst, len(ticks))
    gap = longest.sum() / bound - 1.0 if bound > 0.0 else 0.0
    return Favourites(child, parent, x, bound, float(gap) if gap > _CLOSED else 0.0)


def _relax(net: Net, limit: int, first_rows: int) -> tuple[Floats, float]:
    """Fact 2 until nothing more goes, then the blocks."""
    from baechi.placers import _paths

    y = np.zeros(len(net.u))
    alone = net.k.max(initial=0.0)
    while True:
        y[net.edge[net.forced]] = 1.0
        by_head = np.argsort(net.v, kind="stable")
        head, tail = _paths.lower_bounds(net.k, net.u, net.v, net.c, by_head, net.cut)
        low = Bounds(head, tail, net.most(head + tail))
        through, _ = net.paths(net.forced.astype(np.float64))
        keep = through >= low.w[net.block[net.u]] * (1.0 - 1e-12)
        if keep.all():
            break
        nodes = np.unique(np.concatenate((net.u[keep], net.v[keep])))
        at = np.full(len(net.k), -1)
        at[nodes] = np.arange(len(nodes))
        net = make_net(net.k[nodes], at[net.u[keep]], at[net.v[keep]], net.c[keep], net.edge[keep])
    y[net.edge], bound = _grow(net, low, by_head, limit, first_rows)
    return y, max(bound, float(alone))


def _grow(net: Net, low: Bounds, by_head: Ints, limit: int, first_rows: int) -> tuple[Floats, float]:
    """Fact 4: solve, look for longer paths, take their edges in, until every block is closed."""
    from baechi.placers import _paths

    block = net.block[net.u]
    bound = low.w.copy()
    inside = np.zeros(len(block), np.bool_)
    y = net.forced.astype(np.float64)
    y = _best(net, y, bound, _spread(net, by_head, bound, inside, y, 0.5))
    while True:
        through, longest = net.paths(y)
        new = _more_rows(net, through, longest > bound * (1.0 + _CLOSED), inside, limit, first_rows)
        if not new.any():
            _paths.relay(net.k, net.u, net.v, net.c, by_head, net.cut, longest[net.block], y, False)
            return np.where(net.forced, 1.0, y), float(bound.sum())
        inside |= new
        opened = np.zeros(len(bound), np.bool_)
        opened[block[new]] = True
        trial = np.where(opened[block], net.forced, y)
        for part in _portions(block, np.flatnonzero(inside & opened[block]), first_rows):
            solve_rows(net, low, longest, part, bound, trial)
        y = _best(net, y, bound, _spread(net, by_head, bound, inside, trial, 0.0))


def _more_rows(net: Net, through: Floats, unsolved: Bools, inside: Bools, limit: int, first_rows: int) -> Bools:
    """The edges on the longest paths of each unsolved block, half as many again as it has."""
    block = net.block[net.u]
    have = np.bincount(block[inside], minlength=len(unsolved))
    first = np.maximum(np.bincount(block, minlength=len(unsolved)) // 12, first_rows)
    allowed = np.minimum(
        np.where(have == 0, first, np.minimum(np.maximum(have // 2, _LEAST_GROWTH), first)), limit - have
    )
    outside = np.flatnonzero(unsolved[block] & ~inside)
    outside = outside[np.lexsort((-through[outside], block[outside]))]
    rank = np.arange(len(outside)) - np.searchsorted(block[outside], block[outside])
    new = np.zeros(len(block), np.bool_)
    new[outside[rank < allowed[block[outside]]]] = True
    return new


def _portions(block: Ints, edges: Ints, first_rows: int) -> list[Ints]:
    """Whole blocks, together about as many rows as a block starts from."""
    portion = np.searchsorted(block[edges], block[edges]) // first_rows
    return np.split(edges, np.flatnonzero(np.diff(portion)) + 1)


def _spread(net: Net, by_head: Ints, bound: Floats, inside: Bools, y: Floats, pull: float) -> Iterator[Floats]:
    """Fact 5: ways to complete a y that is settled inside; the deadlines lie `pull` of the gap above the bound."""
    from baechi.placers import _paths

    through, _ = net.paths(y)
    order = np.lexsort((-net.c, -through))
    order = order[~(inside | net.forced)[order]]
    filled = y.copy()
    _paths.fill(order, net.u, net.v, filled, len(net.k))
    for start in (y, filled):
        trial = start.copy()
        for step in range(_PASSES):
            goal = bound + (net.paths(trial)[1] - bound) * pull
            _paths.relay(net.k, net.u, net.v, net.c, by_head, net.cut, goal[net.block], trial, step % 2 == 0)
            trial[net.forced] = 1.0
        yield trial
    yield filled


def _best(net: Net, y: Floats, bound: Floats, trials: Iterator[Floats]) -> Floats:
    """Of each block, the trial with the shortest longest path; the first of equals."""
    _, longest = net.paths(y)
    for trial in trials:
        _, found = net.paths(trial)
        y = np.where((found < longest)[net.block[net.u]], trial, y)
        longest = np.minimum(longest, found)
        if (longest <= bound * (1.0 + _CLOSED)).all():
            break
    return y
