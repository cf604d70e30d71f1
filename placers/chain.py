"""The best cut of a line of groups into one segment for each device, by dynamic programming.

PipeDream's split, for any line: the topological order, or the order that eigenvectors of the graph's
Laplacian give, in which what talks much stands close together.

Sources: Harlap et al., "PipeDream" (2018), section 3.2; Fiedler (1973) for the vectors.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.jit import kernel
from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.sim.transfers import transfer_ticks

__all__ = ["chain_splits", "turns"]

Floats = NDArray[np.float64]

_LONGEST_LINE = 400
_WORK = 1e8  # visits of ops and reads that the costs of all segments may take
_VECTORS = 4
_PRECISION = 1_000_000


def chain_splits(a: Arrays) -> Iterator[Ints]:
    """Homes of the groups for the best cut of each line, in which no device's load is higher than need be.

    Long lines are cut between blocks of neighbours. What persists must fit. A device that works in host memory
    may also take what lies between the segments of the others.
    """
    groups = len(a.group_ptr) - 1
    if groups == 0:
        return
    visits = len(a.rank) + len(a.in_t) + 1
    length = int(np.clip(_WORK / visits, 2 * len(a.cap), _LONGEST_LINE))
    blocks = _blocks(a, turns(a), min(length, groups))
    talk = np.asarray(_talk(a, blocks), np.float64)
    work = np.bincount(blocks[a.group], a.ticks.min(axis=1), len(talk))
    lines = [
        np.arange(len(talk)),
        *_spectral(talk, np.ones(len(talk))),
        *_spectral(talk**0.75, work.astype(np.float64)),
    ]
    hosts = np.flatnonzero(a.pays == 0).tolist()
    if hosts:
        lines += _spectral(talk, np.sqrt(work))
    for line in lines:
        position = np.empty(len(line), np.int64)
        position[line] = np.arange(len(line))
        costs = _line(a, position[blocks], len(line))
        for device in (_cut(a, costs), *(_cut_around(a, costs, host) for host in hosts)):
            if device[-1] >= 0:
                yield device[position[blocks]]


def turns(a: Arrays) -> Ints:
    """Rank of each group by its first op in topological order."""
    first = np.full(len(a.group_ptr) - 1, len(a.rank))
    np.minimum.at(first, a.group, a.rank)
    return np.argsort(np.argsort(first))


def _blocks(a: Arrays, turn: Ints, count: int) -> Ints:
    """Block of each group: neighbours in the line, of about the same work."""
    if count >= len(turn):
        return turn
    work = np.bincount(a.group, a.ticks.min(axis=1), len(turn)) + 1.0
    order = np.argsort(turn)
    middle = np.cumsum(work[order]) - work[order] / 2
    block = np.empty(len(turn), np.int64)
    block[order] = np.minimum((middle / work.sum() * count).astype(np.int64), count - 1)
    return np.asarray(np.unique(block, return_inverse=True)[1], np.int64)


@kernel
def _talk(a: Arrays, blocks: Ints) -> Ints:
    """(blocks, blocks) ticks of the transfers between two blocks."""
    count = blocks.max() + 1
    talk = np.zeros((count, count), np.int64)
    for t in range(len(a.t_op)):
        if a.t_ticks[t] == TOKEN:
            continue
        source = blocks[a.group[a.t_op[t]]]
        ticks = transfer_ticks(a, t, 0, len(a.cap) - 1) + 1
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = blocks[a.group[a.rd_op[k]]]
            if reader != source:
                talk[source, reader] += ticks
                talk[reader, source] += ticks
    return talk


def _spectral(weight: Floats, mass: Floats) -> Iterator[Ints]:
    """Lines by the first vectors of L x = lambda M x, a constant one left out: L the Laplacian, M the masses."""
    if len(weight) < 3 or not weight.any() or not mass.any():
        return
    root = np.sqrt(mass + mass.mean() / 100)
    laplacian = (np.diag(weight.sum(axis=1)) - weight) / np.outer(root, root)
    _, vectors = np.linalg.eigh(laplacian / np.abs(laplacian).max())
    for k in range(1, min(1 + _VECTORS, len(weight))):
        yield np.argsort(np.round(vectors[:, k] / root * root.mean(), 9), kind="stable")


class _Line(NamedTuple):
    """What the segments of a line cost.

    Attributes:
        work: (devices, places + 1) ticks of the ops before each place, on each device.
        held: (places + 1,) bytes that persist before each place.
        sent: (places, places + 1) ticks of all transfers into and out of the segment from one place up to another.
    """

    work: Ints
    held: Ints
    sent: Ints


@kernel
def _line(a: Arrays, place: Ints, length: int) -> _Line:
    """The costs of a line's segments; O(length x (ops + reads)) time.

    Args:
        place: (groups,) position of each group in the line.
    """
    devices, tensors, groups = len(a.cap), len(a.t_op), len(a.group_ptr) - 1
    ptr = np.zeros(length + 1, np.int64)
    for g in range(groups):
        ptr[place[g] + 1] += 1
    ptr = np.cumsum(ptr)
    member = np.argsort(place)
    work = np.zeros((devices, length + 1), np.int64)
    held = np.zeros(length + 1, np.int64)
    for i in range(len(a.rank)):
        held[place[a.group[i]] + 1] += a.persistent[i]
        for d in range(devices):
            work[d, place[a.group[i]] + 1] += a.ticks[i, d]
    for j in range(length):
        held[j + 1] += held[j]
        for d in range(devices):
            work[d, j + 1] += work[d, j]
    sent = np.zeros((length, length + 1), np.int64)
    made, inside = np.zeros(tensors, np.int64), np.zeros(tensors, np.int64)
    ticks = np.zeros(tensors, np.int64)
    for t in range(tensors):
        ticks[t] = transfer_ticks(a, t, 0, devices - 1)
    for i in range(length):
        made[:] = 0
        inside[:] = 0
        load = 0
        for j in range(i, length):
            for m in range(ptr[j], ptr[j + 1]):
                for s in range(a.group_ptr[member[m]], a.group_ptr[member[m] + 1]):
                    op = a.group_op[s]
                    for t in range(a.out_ptr[op], a.out_ptr[op + 1]):
                        made[t] = 1
                        load += ticks[t] * ((inside[t] < a.rd_ptr[t + 1] - a.rd_ptr[t]) - (inside[t] > 0))
                    for k in range(a.in_ptr[op], a.in_ptr[op + 1]):
                        t = a.in_t[k]
                        inside[t] += 1
                        if made[t]:
                            load -= ticks[t] * (inside[t] == a.rd_ptr[t + 1] - a.rd_ptr[t])
                        else:
                            load += ticks[t] * (inside[t] == 1)
            sent[i, j + 1] = load
    return _Line(work, held, sent)


@kernel
def _cut(a: Arrays, line: _Line) -> Ints:
    """Device of each place in the line; -1 when no cut lets everything that persists fit.

        f(k, j) = min_i max(f(k - 1, i), load_k(i, j))

    is the best highest load of the first k devices with the first j places; O(devices x length^2) time.
    """
    devices, length, never = len(a.cap), len(line.held) - 1, np.int64(1) << 62
    best = np.full((devices + 1, length + 1), never)
    cut = np.zeros((devices + 1, length + 1), np.int64)
    best[0, 0] = 0
    for d in range(devices):
        for j in range(length + 1):
            best[d + 1, j], cut[d + 1, j] = best[d, j], j
            for i in range(j):
                if best[d, i] == never or line.held[j] - line.held[i] > a.cap[d]:
                    continue
                load = max(best[d, i], a.pays[d] * line.sent[i, j] + line.work[d, j] - line.work[d, i])
                if load < best[d + 1, j]:
                    best[d + 1, j], cut[d + 1, j] = load, i
    device = np.full(length, -1, np.int64)
    if best[devices, length] < never:
        j = length
        for d in range(devices - 1, -1, -1):
            device[cut[d + 1, j] : j] = d
            j = cut[d + 1, j]
    return device


@kernel
def _cut_around(a: Arrays, line: _Line, host: int) -> Ints:
    """Device of each place when a device in host memory takes what lies between the segments of those that pay.

    Within a load L of each of the others,

        g(k, j) = min(g(k, j - 1) + work_host(j - 1, j), min of g(k - 1, i) over i with load_k(i, j) <= L)

    is the least work of the host with the first j places, where devices 1 to k may have some of them. The least L that
    the host's work does not exceed is found by bisection, to a millionth; each step takes O(devices x length^2) time.

    Args:
        host: pays for no transfer.

    Returns:
        -1 when more would persist on the host than it holds.
    """
    devices, length = len(a.cap), len(line.held) - 1
    least = np.empty((devices + 1, length + 1), np.int64)
    came = np.empty((devices + 1, length + 1), np.int64)
    device = np.full(length, -1, np.int64)
    low, high = np.int64(0), line.work[host, length]
    limit, kept = high, line.held[length]
    while True:
        least[0] = line.work[host]
        came[0] = -1
        for d in range(devices):
            for j in range(length + 1):
                least[d + 1, j], came[d + 1, j] = least[d, j], j
                if j > 0 and least[d + 1, j - 1] + line.work[host, j] - line.work[host, j - 1] < least[d + 1, j]:
                    least[d + 1, j] = least[d + 1, j - 1] + line.work[host, j] - line.work[host, j - 1]
                    came[d + 1, j] = -1
                for i in range(j if a.pays[d] else 0):
                    if least[d, i] >= least[d + 1, j] or line.held[j] - line.held[i] > a.cap[d]:
                        continue
                    if line.sent[i, j] + line.work[d, j] - line.work[d, i] <= limit:
                        least[d + 1, j], came[d + 1, j] = least[d, i], i
        if least[devices, length] <= limit:
            high, kept, d, j = limit, 0, devices, length
            while j > 0:
                if d > 0 and came[d, j] >= 0:
                    device[came[d, j] : j] = d - 1
                    j, d = came[d, j], d - 1
                else:
                    device[j - 1] = host
                    kept += line.held[j] - line.held[j - 1]
                    j -= 1
        else:
            low = limit
        if high - low <= max(1, high // _PRECISION):
            break
        limit = (low + high) // 2
    if kept > a.cap[host]:
        device[:] = -1
    return device
