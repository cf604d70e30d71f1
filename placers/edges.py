"""A graph as edges between ops: who waits for whom, and for how much."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.sim.transfers import transfer_ticks

__all__ = ["Edges", "edges_of"]


class Edges(NamedTuple):
    """Who waits for whom, each pair once, with the ticks of all that is sent from one to the other.

    Attributes:
        ptr, source, ticks: what each op waits for, in ascending order.
        to_ptr, reader, at: who waits for each op, and where in `ticks` that edge is.
    """

    ptr: Ints
    source: Ints
    ticks: Ints
    to_ptr: Ints
    reader: Ints
    at: Ints


@kernel
def edges_of(a: Arrays) -> Edges:
    """The edges of a graph; a transfer takes its time on the link from the first to the last device."""
    ops, far = len(a.rank), len(a.cap) - 1
    ptr = np.zeros(ops + 1, np.int64)
    source = np.empty(len(a.in_t), np.int64)
    ticks = np.empty(len(a.in_t), np.int64)
    count = 0
    for i in range(ops):
        makers = np.sort(a.t_op[a.in_t[a.in_ptr[i] : a.in_ptr[i + 1]]])
        for k in range(len(makers)):
            if k == 0 or makers[k] != makers[k - 1]:
                source[count], ticks[count] = makers[k], 0
                count += 1
        ptr[i + 1] = count
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            t = a.in_t[k]
            if a.t_ticks[t] != TOKEN:
                e = ptr[i] + np.searchsorted(source[ptr[i] : count], a.t_op[t])
                ticks[e] += transfer_ticks(a, t, 0, far)
    source, ticks = source[:count].copy(), ticks[:count].copy()
    to_ptr = np.zeros(ops + 1, np.int64)
    for j in source:
        to_ptr[j + 1] += 1
    to_ptr = np.cumsum(to_ptr)
    fill = to_ptr[:-1].copy()
    reader, at = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(ops):
        for e in range(ptr[i], ptr[i + 1]):
            reader[fill[source[e]]], at[fill[source[e]]] = i, e
            fill[source[e]] += 1
    return Edges(ptr, source, ticks, to_ptr, reader, at)
