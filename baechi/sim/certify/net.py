"""What the bounds on one step read of a problem: times on the fastest device, transfers on the fastest link."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import LINK, TOKEN, Arrays, Ints
from baechi.cost.tensors import buckets

__all__ = ["Net", "core_of", "least_transfer", "net_of"]


class Net(NamedTuple):
    """The ops of a step and who waits for whom; times in ticks.

    Attributes:
        p: (ops,) time of each op on its fastest device.
        order: (ops,) topological order.
        group: (ops,) colocation group.
        nbytes: (groups,) what persists.
        in_ptr, in_op, in_c: ops that each op waits for, and the least time from device to device.
        out_ptr, out_op, out_c: ops that wait for each op, likewise.
        machines: as many ops run at full speed at once, at the most.
        room: memory of the largest device.
    """

    p: Ints
    order: Ints
    group: Ints
    nbytes: Ints
    in_ptr: Ints
    in_op: Ints
    in_c: Ints
    out_ptr: Ints
    out_op: Ints
    out_c: Ints
    machines: int
    room: int


def least_transfer(a: Arrays) -> Ints:
    """(tensors,) the time of each tensor's transfer on the link that is fastest for it; 0 of a token."""
    least = np.where(a.t_ticks == TOKEN, 0, a.t_ticks)
    linked = np.flatnonzero(a.t_ticks == LINK)
    best = np.full(len(linked), np.iinfo(np.int64).max)
    for latency, per_byte in _fast_links(a):
        best = np.minimum(best, latency + np.rint(a.t_bytes[linked] * per_byte).astype(np.int64))
    least[linked] = best
    return least.astype(np.int64)


def _fast_links(a: Arrays) -> list[tuple[int, float]]:
    """Latency and ticks per byte of the links that no other link beats in both; of one device, of no time."""
    apart = ~np.eye(len(a.cap), dtype=bool)
    links: list[tuple[int, float]] = []
    for latency, per_byte in sorted(set(zip(a.latency[apart].tolist(), a.ticks_per_byte[apart].tolist(), strict=True))):
        if not links or per_byte < links[-1][1]:
            links.append((latency, per_byte))
    return links or [(0, 0.0)]


def net_of(a: Arrays) -> Net:
    """The net of a problem; of several tensors between two ops the slowest counts."""
    nbytes = np.zeros(len(a.group_ptr) - 1, np.int64)
    np.add.at(nbytes, a.group, a.persistent)
    machines = np.minimum(np.bincount(a.host, minlength=len(a.cores)), a.cores).sum()
    edges = _edges(*_waits(a, least_transfer(a)), len(a.rank))
    return Net(a.ticks.min(axis=1), a.order, a.group, nbytes, *edges, int(machines), int(a.cap.max()))


@kernel
def _waits(a: Arrays, cost: Ints) -> tuple[Ints, Ints, Ints]:
    """Maker, reader and ticks of each pair of ops that a tensor ties, by reader."""
    maker, reader, ticks = np.empty_like(a.in_t), np.empty_like(a.in_t), np.empty_like(a.in_t)
    row = np.full(len(a.rank), -1, np.int64)
    count = 0
    for i in range(len(a.rank)):
        first = count
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            u = a.t_op[a.in_t[k]]
            if row[u] < first:
                row[u] = count
                maker[count], reader[count], ticks[count] = u, i, 0
                count += 1
            ticks[row[u]] = max(ticks[row[u]], cost[a.in_t[k]])
    return maker[:count], reader[:count], ticks[:count]


def _edges(maker: Ints, reader: Ints, cost: Ints, n: int) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Edges, sorted by reader, by both of their ends."""
    ptr, back = buckets(maker, n)
    return _pointers(reader, n), maker, cost, ptr, reader[back], cost[back]


def core_of(net: Net) -> Net:
    """The net without ops of no time that only such ops come before, or only such ops come after.

    Weights and what holds results: a plan of the whole is, without them, a plan of the rest.
    """
    kept = np.ones(len(net.p), bool)
    for order, ptr, op in ((net.order, net.in_ptr, net.in_op), (net.order[::-1], net.out_ptr, net.out_op)):
        for i in order.tolist():
            kept[i] &= net.p[i] > 0 or bool(kept[op[ptr[i] : ptr[i + 1]]].any())
    number = np.cumsum(kept) - 1
    reader = np.repeat(np.arange(len(kept)), np.diff(net.in_ptr))
    both = kept[net.in_op] & kept[reader]
    maker, reader, cost = number[net.in_op[both]], number[reader[both]], net.in_c[both]
    edges = _edges(maker, reader, cost, int(kept.sum()))
    order = number[net.order[kept[net.order]]]
    return Net(net.p[kept], order, net.group[kept], net.nbytes, *edges, net.machines, net.room)


def _pointers(key: Ints, count: int) -> Ints:
    ptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(key, minlength=count), out=ptr[1:])
    return ptr
