"""Memory of each device while a list scheduler places ops one after the other.

What persists counts from the start of the step, so a group that is placed late raises the memory
of the past too. A tensor, or a received copy of it, is held while an op that reads it runs and as
long as some reader of it is not placed yet: it might come to this device.
"""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import TOKEN, Arrays, Ints

__all__ = ["Ledger", "commit", "finish", "new_ledger", "overflow"]


class Ledger(NamedTuple):
    """The books.

    Attributes:
        persistent, dynamic, peak: (devices,) bytes that persist, that come and go, and the highest
            of the latter so far.
        unread: (tensors,) readers that are not placed yet.
        storage: (tensors,) where a placed tensor lives: its own number, or behind the tensors, by
            (tensor, device), a received copy.
        holders: (storages,) how many hold it.
        arrived: (tensors, devices) when a copy is there, or -1.
        home: (groups,) device of each group, or -1.
    """

    persistent: Ints
    dynamic: Ints
    peak: Ints
    unread: Ints
    storage: Ints
    holders: Ints
    arrived: Ints
    home: Ints


@maker
def new_ledger(a: Arrays, home: Ints, group_persistent: Ints) -> Ledger:
    """Books in which only the groups that have a home are entered."""
    devices, tensors = len(a.cap), len(a.t_op)
    unread = a.rd_ptr[1:] - a.rd_ptr[:-1]
    persistent = np.zeros(devices, np.int64)
    for g in range(len(home)):
        if home[g] >= 0:
            persistent[home[g]] += group_persistent[g]
    return Ledger(
        persistent,
        np.zeros(devices, np.int64),
        np.zeros(devices, np.int64),
        unread,
        np.arange(tensors),
        np.zeros(tensors * (devices + 1), np.int64),
        np.full((tensors, devices), -1, np.int64),
        home.copy(),
    )


@leaf
def overflow(a: Arrays, b: Ledger, device: Ints, group_persistent: Ints, i: int, p: int) -> int:
    """Bytes by which placing op `i` on device `p` now would exceed its cap; at most 0 when it fits."""
    need = a.temp[i]
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        need += a.t_size[t]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        source = device[a.t_op[t]]
        if source < 0:
            source = b.home[a.group[a.t_op[t]]]
        if a.t_ticks[t] != TOKEN and source >= 0 and source != p and b.arrived[t, p] < 0:
            need += a.t_bytes[t]
    g = a.group[i]
    persistent = b.persistent[p] + (group_persistent[g] if b.home[g] < 0 else 0)
    return int(persistent + max(b.peak[p], b.dynamic[p] + need) - a.cap[p])


@leaf
def _storage_read(a: Arrays, b: Ledger, device: Ints, t: int, p: int) -> int:
    """The storage that an op on device `p` reads tensor `t` from."""
    if a.t_ticks[t] == TOKEN or device[a.t_op[t]] == p:
        return int(b.storage[t])
    return int(len(a.t_op) + t * len(a.cap) + p)


@leaf
def _release(a: Arrays, b: Ledger, storage: int, p: int) -> None:
    b.holders[storage] -= 1
    if b.holders[storage] == 0:
        tensors, devices = len(a.t_op), len(a.cap)
        b.dynamic[p] -= a.t_size[storage] if storage < tensors else a.t_bytes[(storage - tensors) // devices]


@leaf
def commit(a: Arrays, b: Ledger, device: Ints, group_persistent: Ints, i: int, p: int) -> None:
    """Place op `i`, whose new copies are in `arrived` already marked, on device `p` and start it."""
    devices, tensors = len(a.cap), len(a.t_op)
    g = a.group[i]
    if b.home[g] < 0:
        b.home[g] = p
        b.persistent[p] += group_persistent[g]
    device[i] = p
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        base = a.t_base[t]
        if base >= 0:
            b.storage[t] = _storage_read(a, b, device, base, p)
        else:
            b.dynamic[p] += a.t_size[t]
        b.holders[b.storage[t]] += 1 + a.t_keep[t] + (1 if b.unread[t] > 0 else 0)
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        storage = _storage_read(a, b, device, t, p)
        if storage >= tensors and b.holders[storage] == 0:
            b.dynamic[p] += a.t_bytes[t]
            b.holders[storage] += 1 if b.unread[t] > 0 else 0
        b.holders[storage] += 1
    b.dynamic[p] += a.temp[i]
    b.peak[p] = max(b.peak[p], b.dynamic[p])
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        b.unread[t] -= 1
        if b.unread[t] == 0:
            _release(a, b, b.storage[t], device[a.t_op[t]])
            for q in range(devices):
                copy = tensors + t * devices + q
                if b.arrived[t, q] >= 0 and b.holders[copy] > 0:
                    _release(a, b, copy, q)


@leaf
def finish(a: Arrays, b: Ledger, device: Ints, i: int) -> None:
    """Free what op `i`, which ends now, was the last to hold."""
    p = device[i]
    b.dynamic[p] -= a.temp[i]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        _release(a, b, _storage_read(a, b, device, a.in_t[k], p), p)
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        _release(a, b, b.storage[t], p)
