"""Least times between ops: along paths, by what has to lie on two devices, and by all that runs between."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import Ints

__all__ = ["Edges", "Flags", "lags"]

_NO_PATH = -1

Flags = NDArray[np.bool_]


class Edges(NamedTuple):
    """Who reads of each op, and of whom each reads, with the least waits when they are apart."""

    out: Ints
    reader: Ints
    out_wait: Ints
    into: Ints
    maker: Ints
    in_wait: Ints


@maker
def lags(e: Edges, order: Ints, ticks: Ints, label: Ints, apart: Flags, devices: int, least: Ints) -> tuple[Ints, Ints]:
    """Least units from the end of one op to the start of another, in any case and when apart."""
    ops = len(order)
    lag, far = np.full((ops, ops), _NO_PATH), np.full((ops, ops), _NO_PATH)
    for at in range(ops - 1, -1, -1):
        u = order[at]
        for k in range(e.out[u], e.out[u + 1]):
            w = e.reader[k]
            never = label[u] == label[w]
            must = apart[label[u], label[w]]
            cross = 0 if never else e.out_wait[k]
            lag[u, w] = max(lag[u, w], cross if must else 0)
            far[u, w] = max(far[u, w], cross)
            for v in range(ops):
                if lag[w, v] < 0:
                    continue
                through = ticks[w] + lag[w, v]
                lag[u, v] = max(lag[u, v], through + (cross if must else 0))
                stay = ticks[w] + max(far[w, v], lag[w, v])
                crossed = cross + through
                far[u, v] = max(far[u, v], stay if never else (crossed if must else min(crossed, stay)))
        for v in order:
            if lag[u, v] < 0:
                continue
            for k in range(e.into[v], e.into[v + 1]):
                x = e.maker[k]
                if lag[u, x] >= 0:
                    must = apart[label[x], label[v]]
                    lag[u, v] = max(lag[u, v], lag[u, x] + ticks[x] + (e.in_wait[k] if must else 0))
            lag[u, v] = max(lag[u, v], least[u, v], _between(u, v, ticks, lag, far, devices))
            far[u, v] = max(far[u, v], lag[u, v])
            if apart[label[u], label[v]]:
                lag[u, v] = far[u, v]
    return lag, far


@leaf
def _between(u: int, v: int, ticks: Ints, lag: Ints, far: Ints, devices: int) -> int:
    """Least time for all that runs after `u` and before `v`, spread over the devices.

    Only the device of `u` can start at once, the others when a transfer has arrived; likewise at the end.
    """
    work, first, last = 0, -1, -1
    for w in range(len(ticks)):
        if lag[u, w] >= 0 and lag[w, v] >= 0:
            work += ticks[w]
            first = int(far[u, w]) if first < 0 else min(first, int(far[u, w]))
            last = int(far[w, v]) if last < 0 else min(last, int(far[w, v]))
    lost = max(0, first) + max(0, last)
    return int(min(work, -(-(work + (devices - 1) * lost) // devices)))
