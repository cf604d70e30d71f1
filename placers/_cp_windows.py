"""When an op can run and what must or cannot share a device, in any plan of at most a given length.

An op starts no sooner than its inputs are there. Of an ancestor that ends too late for a transfer
to come in time, it follows that the two share a device, and what shares a device runs one after the
other (Papadimitriou and Yannakakis, "Towards an architecture-independent analysis of parallel
algorithms", 1990; here with a preemptive one-machine bound, Jackson's, and over chains of transfers
of which one at least must cross). The same holds backwards from the end. A pair that would be too
late apart is drawn together, a pair that would be too late together is kept apart, and so on until
nothing changes or nothing is left.
"""

from dataclasses import dataclass

import numpy as np

from baechi.cost.problem import Ints
from baechi.cost.tensors import buckets
from baechi.placers._cp_lags import Edges, Flags
from baechi.placers._cp_net import Net
from baechi.placers._cp_settle import settle

__all__ = ["Windows", "least_horizon", "windows"]


@dataclass(frozen=True)
class Windows:
    """What holds in every plan of at most `horizon` units.

    Attributes:
        horizon: the length.
        label: (ops,) classes of ops that share a device.
        head: (ops,) units before which an op cannot start.
        tail: (ops,) units that pass after its end.
        apart: (labels, labels) classes that cannot share a device.
        allowed: (labels, devices) where a class can be.
        lag, far: (ops, ops) least units from the end of an op to the start of another that waits for
            it, and those when they are apart; -1 where it does not wait.
    """

    horizon: int
    label: Ints
    head: Ints
    tail: Ints
    apart: Flags
    allowed: Flags
    lag: Ints
    far: Ints


def windows(net: Net, horizon: int) -> Windows | None:
    """What holds in every plan of at most `horizon` units; None when there is none."""
    ticks = np.array(net.ticks, np.int64)
    label = _first_of_each(np.array(net.group, np.int64))
    apart = np.zeros((len(label), len(label)), np.bool_)
    allowed = np.ones((len(label), net.devices), np.bool_)
    order = np.array(net.order, np.int64)
    fits, head, tail, lag, far = settle(
        _edges(net), order, order[::-1].copy(), ticks, label, apart, allowed, horizon, net.least
    )
    if not fits:
        return None
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    rows = label[first]
    return Windows(horizon, number.astype(np.int64), head, tail, apart[np.ix_(rows, rows)], allowed[rows], lag, far)


def least_horizon(net: Net, low: int, high: int, precision: int) -> int:
    """The least horizon, from `low` on, that is not refuted; up to `precision`, on the safe side."""
    while high - low > precision:
        middle = (low + high) // 2
        if windows(net, middle) is None:
            low = middle + 1
        else:
            high = middle
    return low


def _edges(net: Net) -> Edges:
    pair, wait = np.array([*net.waits], np.int64).reshape(-1, 2), np.array([*net.waits.values()], np.int64)
    out, by_maker = buckets(pair[:, 0], len(net.ticks))
    into, by_reader = buckets(pair[:, 1], len(net.ticks))
    reader, maker_ = pair[by_maker, 1].copy(), pair[by_reader, 0].copy()
    return Edges(out, reader, wait[by_maker], into, maker_, wait[by_reader])


def _first_of_each(group: Ints) -> Ints:
    """Groups numbered by their first op."""
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(first[number], np.int64)
