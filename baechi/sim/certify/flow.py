"""The least load of a device that has a given group: a minimum cut.

Whatever else shares the device of a group, the load is its work, what it sends, each tensor once, and what
it receives, each tensor once. As a function of the set of groups on the device this is submodular, and the least of
it over all sets that have the group is a minimum cut of a network: the groups of the device are those on the source's
side. A group is cut from the sink at the cost of its work. A tensor's node "sent" hangs on its maker at the tensor's
cost and pulls its readers in; the node "received" hangs on all readers and is cut from the maker at that cost.

That is the load of a device that pays for transfers. Devices that work in host memory can take some groups from them,
at the cost of the groups' work there.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, maker
from baechi.cost.problem import Arrays, Ints
from baechi.sim.certify.net import least_transfer

__all__ = ["Network", "heaviest_least_load", "least_load", "network_of"]

_ENDLESS = 1 << 60
_MOST_READS = 300_000
_MOST_VISITS = 1_500_000  # arcs of the network, times the groups that are tried
_PRICES = tuple(2.0**k for k in range(-10, 1))  # of all memory of a device, as shares of the dearest load
_PRICED = 8  # groups that are tried at each price


class Network(NamedTuple):
    """Arcs of a flow network in pairs: arc k and its reverse, k ^ 1.

    The first nodes are the groups, then come "sent" and "received" of each tensor, then the sink.

    Attributes:
        ptr, arc: arcs out of each node.
        head: (arcs,) the node an arc leads to.
        room: (arcs,) its capacity.
        alone: (groups,) load of a device that has only the group.
    """

    ptr: Ints
    arc: Ints
    head: Ints
    room: Ints
    alone: Ints


def heaviest_least_load(a: Arrays) -> int:
    """The highest `least_load` of a group that hosts leave to others, in ticks: no plan's highest load is lower.

    The groups are tried from the dearest to have alone, which none needs more than; in graphs that are too large
    for that, only as many as there is time for, and of graphs with over 300,000 reads none: a group's work counts.
    Where not everything fits on one device, memory has its price: what persists of the device's groups is at most its
    memory, so at any price for each byte the least of load and price together, less the price of all memory, is a
    bound too.
    """
    if len(a.in_t) > _MOST_READS:
        return int(_work(a, a.ticks.min(axis=1)).max(initial=0))
    net, hosts = network_of(a), _Hosts(_host_work(a), max(1, int((a.pays == 0).sum())))
    best, tries = 0, max(4, _MOST_VISITS // max(1, len(net.head)))
    nothing = np.zeros(len(net.alone), np.int64)
    found: dict[int, int] = {}
    for g in np.argsort(-net.alone, kind="stable")[:tries].tolist():
        if net.alone[g] <= best:
            break
        found[g] = least_load(net, g, nothing)
        best = hosts.relieve(found) if found[g] > best else best
    dearest = sorted(found, key=lambda g: (found[g], g), reverse=True)[: tries // len(_PRICES)]
    for g, ticks in _with_memory(a, net, dearest):
        found[g] = max(found[g], ticks)
    return hosts.relieve(found)


class _Hosts(NamedTuple):
    """The devices that work in host memory.

    Attributes:
        work: (groups,) ticks of each group on the best of them; endless where there is none.
        number: how many there are, at least 1.
    """

    work: Ints
    number: int

    def relieve(self, least: Mapping[int, int]) -> int:
        """The highest load that is left when hosts take what is dearest for others.

        Of any groups, one is on a device that pays, or all are on hosts.

        Args:
            least: by group, the least load of a device that pays and has it.
        """
        best = most = total = 0
        for g in sorted(least, key=lambda g: (-least[g], g)):
            total, most = total + int(self.work[g]), max(most, int(self.work[g]))
            best = max(best, min(least[g], max(most, -(-total // self.number))))
        return best


def _work(a: Arrays, ticks: Ints) -> Ints:
    """(groups,) ticks of the ops of each."""
    work = np.zeros(len(a.group_ptr) - 1, np.int64)
    np.add.at(work, a.group, ticks)
    return work


def _host_work(a: Arrays) -> Ints:
    """(groups,) ticks of the ops of each on the best device that works in host memory; endless where there is none."""
    least = np.full(len(a.group_ptr) - 1, _ENDLESS)
    for d in np.flatnonzero(a.pays == 0):
        least = np.minimum(least, _work(a, a.ticks[:, d]))
    return least


def _with_memory(a: Arrays, net: Network, groups: list[int]) -> Iterator[tuple[int, int]]:
    nbytes = np.zeros(len(net.alone))
    np.add.at(nbytes, a.group, a.persistent.astype(np.float64))
    room, work = float(a.cap[_paying(a)].max()), float(net.alone.sum())
    if nbytes.sum() <= room or nbytes.max() > room:
        return
    for price in _PRICES:
        extra = np.floor(nbytes / room * (price * work)).astype(np.int64)
        for g in groups[:_PRICED]:
            yield g, least_load(net, g, extra) - math.ceil(price * work)


def network_of(a: Arrays) -> Network:
    """The network of a device that pays: each op on the fastest device that does, each transfer on its fastest link."""
    blocks = len(a.group_ptr) - 1
    work = _work(a, a.ticks[:, _paying(a)].min(axis=1))
    cost = least_transfer(a)
    read = np.repeat(np.arange(len(a.t_op)), np.diff(a.rd_ptr))
    sends = (a.group[a.t_op[read]] != a.group[a.rd_op]) & (cost[read] > 0)
    tensor, reader = np.divmod(np.unique(read[sends] * blocks + a.group[a.rd_op[sends]]), max(1, blocks))
    tensors, of = np.unique(tensor, return_inverse=True)
    made, ticks = a.group[a.t_op[tensors]], cost[tensors]
    sent = blocks + 2 * np.arange(len(tensors))
    sink = np.full(blocks, blocks + 2 * len(tensors))
    endless = np.full(len(reader), _ENDLESS)
    tail = np.concatenate([np.arange(blocks), made, sent[of], reader, sent + 1])
    head = np.concatenate([sink, sent, reader, sent[of] + 1, made])
    room = np.concatenate([work, ticks, endless, endless, ticks])
    start = np.column_stack([tail, head]).ravel()
    ptr = np.zeros(blocks + 2 * len(tensors) + 2, np.int64)
    np.cumsum(np.bincount(start, minlength=len(ptr) - 1), out=ptr[1:])
    both = np.column_stack([room, np.zeros_like(room)]).ravel()
    alone = work.copy()
    np.add.at(alone, made, ticks)
    np.add.at(alone, reader, cost[tensor])
    return Network(ptr, np.argsort(start, kind="stable"), np.column_stack([head, tail]).ravel(), both, alone)


def _paying(a: Arrays) -> Ints:
    """The devices that pay for transfers; where none does, all."""
    paying = np.flatnonzero(a.pays)
    return paying if len(paying) else np.arange(len(a.pays))


@kernel
def least_load(net: Network, group: int, extra: Ints) -> int:
    """Least load in ticks of a device that has the group, whatever else it has.

    Args:
        net: the network.
        group: the group.
        extra: (groups,) added to the load of a device that has the group.
    """
    room = net.room.copy()
    for g in range(len(extra)):
        room[2 * g] += extra[g]
    sink = len(net.ptr) - 2
    flow = 0
    while True:
        level = _levels(net, room, group, sink)
        if level[sink] < 0:
            return int(flow)
        flow += _augment(net, room, level, group, sink)


@maker
def _levels(net: Network, room: Ints, source: int, target: int) -> Ints:
    """Arcs from the source, breadth first; -1 where nothing more gets through."""
    level = np.full(len(net.ptr) - 1, -1, np.int64)
    queue = np.empty(len(level), np.int64)
    queue[0], level[source], first, last = source, 0, 0, 1
    while first < last and level[target] < 0:
        node = queue[first]
        first += 1
        for x in range(net.ptr[node], net.ptr[node + 1]):
            k = net.arc[x]
            if room[k] > 0 and level[net.head[k]] < 0:
                level[net.head[k]] = level[node] + 1
                queue[last] = net.head[k]
                last += 1
    return level


@maker
def _augment(net: Network, room: Ints, level: Ints, source: int, target: int) -> int:
    """Send what the levels let through (Dinic 1970); returns how much."""
    at = net.ptr[:-1].copy()
    path = np.empty(len(level) + 1, np.int64)
    flow, depth, node = 0, 0, source
    while True:
        if node == target:
            least = room[path[0]]
            for x in range(1, depth):
                least = min(least, room[path[x]])
            for x in range(depth):
                room[path[x]] -= least
                room[path[x] ^ 1] += least
            flow += least
            depth, node = 0, source
            continue
        while at[node] < net.ptr[node + 1]:
            k = net.arc[at[node]]
            if room[k] > 0 and level[net.head[k]] == level[node] + 1:
                break
            at[node] += 1
        if at[node] < net.ptr[node + 1]:
            path[depth] = net.arc[at[node]]
            node = net.head[path[depth]]
            depth += 1
        elif depth == 0:
            return int(flow)
        else:
            depth -= 1
            at[net.head[path[depth] ^ 1]] += 1
            node = net.head[path[depth] ^ 1]
