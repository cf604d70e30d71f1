"""Priorities of ops for list scheduling: the upward rank, the optimistic cost table, the critical path.

With w_ip the time of op i on device p, and w_i and c_ij means over devices and over links:

    rank_u(i) = w_i + max over readers j of ( c_ij + rank_u(j) )
    rank_d(j) = max over what it reads, i, of ( rank_d(i) + w_i + c_ij )
    OCT(i, p) = max over readers j of min over q of ( OCT(j, q) + w_jq + c_ij [q != p] )

Sources: Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task scheduling for
heterogeneous computing" (TPDS 2002), equations 3 to 6; Arabnejad, Barbosa, "List scheduling
algorithm for heterogeneous systems by an optimistic cost table" (TPDS 2014), equation 3.
"""

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import TOKEN, Arrays, Ints

__all__ = ["critical_device", "downward_rank", "mean_transfers", "optimistic_costs", "upward_rank"]


@kernel
def mean_transfers(a: Arrays) -> Ints:
    """Time of a transfer of each tensor, the mean over the links between two devices; O(tensors + devices^2)."""
    devices = len(a.cap)
    pairs = max(1, devices * (devices - 1))
    latency, per_byte = 0.0, 0.0
    for p in range(devices):
        for q in range(devices):
            if p != q:
                latency += a.latency[p, q] / pairs
                per_byte += a.ticks_per_byte[p, q] / pairs
    mean = np.empty(len(a.t_op), np.int64)
    for t in range(len(mean)):
        mean[t] = a.t_ticks[t]
        if a.t_ticks[t] == TOKEN or devices == 1:
            mean[t] = 0
        elif a.t_ticks[t] < 0:
            mean[t] = int(latency + a.t_bytes[t] * per_byte)
    return mean


@maker
def _mean_ticks(a: Arrays) -> Ints:
    mean = np.zeros(len(a.rank), np.int64)
    for i in range(len(mean)):
        for p in range(len(a.cap)):
            mean[i] += a.ticks[i, p]
        mean[i] //= len(a.cap)
    return mean


@kernel
def upward_rank(a: Arrays, transfer: Ints) -> Ints:
    """rank_u of each op, in ticks; O(ops x devices + reads).

    Args:
        transfer: (tensors,) `mean_transfers`.
    """
    rank = _mean_ticks(a)
    for k in range(len(rank) - 1, -1, -1):
        i = a.order[k]
        after = 0
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                after = max(after, transfer[t] + rank[a.rd_op[r]])
        rank[i] += after
    return rank


@kernel
def downward_rank(a: Arrays, transfer: Ints) -> Ints:
    """rank_d of each op, in ticks; O(ops x devices + reads)."""
    mean = _mean_ticks(a)
    rank = np.zeros(len(mean), np.int64)
    for i in a.order:
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            t = a.in_t[k]
            j = a.t_op[t]
            rank[i] = max(rank[i], rank[j] + mean[j] + transfer[t])
    return rank


@kernel
def optimistic_costs(a: Arrays, transfer: Ints) -> Ints:
    """OCT of each op on each device, in ticks; O(reads x devices)."""
    ops, devices = len(a.rank), len(a.cap)
    table = np.zeros((ops, devices), np.int64)
    for k in range(ops - 1, -1, -1):
        i = a.order[k]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                j = a.rd_op[r]
                elsewhere = _least(a, table, j) + transfer[t]
                for p in range(devices):
                    table[i, p] = max(table[i, p], min(elsewhere, table[j, p] + a.ticks[j, p]))
    return table


@leaf
def _least(a: Arrays, table: Ints, j: int) -> int:
    least = table[j, 0] + a.ticks[j, 0]
    for q in range(1, len(a.cap)):
        least = min(least, table[j, q] + a.ticks[j, q])
    return int(least)


@kernel
def critical_device(a: Arrays, priority: Ints) -> Ints:
    """For each op, the device that runs the critical path soonest if the op is on that path, else -1.

    Args:
        priority: (ops,) rank_u + rank_d; the critical path is where it is largest.
    """
    pinned = np.full(len(priority), -1, np.int64)
    total = np.zeros(len(a.cap), np.int64)
    at, longest = -1, -1
    for i in a.order:
        if a.in_ptr[i] == a.in_ptr[i + 1] and priority[i] > longest:
            at, longest = i, priority[i]
    while at >= 0:
        pinned[at] = 0
        total += a.ticks[at]
        following = -1
        for t in range(a.out_ptr[at], a.out_ptr[at + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                j = a.rd_op[r]
                if priority[j] == longest and (following < 0 or a.rank[j] < a.rank[following]):
                    following = j
        at = following
    best = np.argmin(total) if len(total) else 0
    for i in range(len(pinned)):
        if pinned[i] == 0:
            pinned[i] = best
    return pinned
