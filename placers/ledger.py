"""Memory of each device while a list scheduler places ops one after the other.

What persists counts from the start of the step, so a group that is placed late raises the memory
of the past too. A tensor, or a received copy of it, is held while an op that reads it runs and as
long as some reader of it is not placed yet: it might come to this device.
"""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import NONE, leaf, maker
from baechi.cost.problem import TOKEN, Arrays, Ints

__all__ = ["Ledger", "add_copy", "commit", "copy_at", "finish", "new_ledger", "overflow"]


class Ledger(NamedTuple):
    """The books.

    Attributes:
        persistent, dynamic, peak: (devices,) bytes that persist, that come and go, and the highest
            of the latter so far.
        unread: (tensors,) readers that are not placed yet.
        storage: (tensors,) where a placed tensor lives: its own number, or behind the tensors a
            received copy.
        holders: (storages,) how many hold it.
        copy_ptr: (tensors + 1,) room for the copies of each tensor: one for each reader, by device
            when there are as many readers as devices, else in the order in which they come.
        copy_device, copy_time, copy_tensor: (copies,) where it is, or -1; when it is there; of what.
        home: (groups,) device of each group, or -1.
        eased: (devices,) 1 where something may fit now that did not when this was last set to 0: memory became free,
            or part of what it needs has come, there or, of a group that had no home yet, anywhere.
    """

    persistent: Ints
    dynamic: Ints
    peak: Ints
    unread: Ints
    storage: Ints
    holders: Ints
    copy_ptr: Ints
    copy_device: Ints
    copy_time: Ints
    copy_tensor: Ints
    home: Ints
    eased: Ints


@maker
def new_ledger(a: Arrays, home: Ints, group_persistent: Ints) -> Ledger:
    """Books in which only the groups that have a home are entered."""
    devices, tensors = len(a.cap), len(a.t_op)
    unread = np.empty(tensors, np.int64)
    for t in range(tensors):
        unread[t] = a.rd_ptr[t + 1] - a.rd_ptr[t]
    persistent = np.zeros(devices, np.int64)
    for g in range(len(home)):
        if home[g] >= 0:
            persistent[home[g]] += group_persistent[g]
    copy_ptr = np.zeros(tensors + 1, np.int64)
    for t in range(tensors):
        copy_ptr[t + 1] = copy_ptr[t] + min(unread[t], devices)
    copies = copy_ptr[tensors]
    copy_tensor = np.empty(copies, np.int64)
    for t in range(tensors):
        for k in range(copy_ptr[t], copy_ptr[t + 1]):
            copy_tensor[k] = t
    return Ledger(
        persistent,
        np.zeros(devices, np.int64),
        np.zeros(devices, np.int64),
        unread,
        np.arange(tensors),
        np.zeros(tensors + copies, np.int64),
        copy_ptr,
        np.full(copies, -1, np.int64),
        np.empty(copies, np.int64),
        copy_tensor,
        home.copy(),
        np.zeros(devices, np.int64),
    )


@leaf
def copy_at(a: Arrays, b: Ledger, t: int, p: int) -> int:
    """The copy of tensor `t` on device `p`, or -1."""
    first, last = b.copy_ptr[t], b.copy_ptr[t + 1]
    if last - first == len(a.cap):
        return int(first + p if b.copy_device[first + p] >= 0 else NONE)
    for k in range(first, last):
        if b.copy_device[k] == p:
            return int(k)
        if b.copy_device[k] < 0:
            break
    return int(NONE)


@leaf
def add_copy(a: Arrays, b: Ledger, t: int, p: int, time: int) -> None:
    """Enter a copy of tensor `t` that will be on device `p`."""
    k = b.copy_ptr[t]
    if b.copy_ptr[t + 1] - k == len(a.cap):
        k += p
    else:
        while b.copy_device[k] >= 0:
            k += 1
    b.copy_device[k], b.copy_time[k] = p, time


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
        if a.t_ticks[t] != TOKEN and source >= 0 and source != p and copy_at(a, b, t, p) < 0:
            need += a.t_bytes[t]
    g = a.group[i]
    persistent = b.persistent[p] + (group_persistent[g] if b.home[g] < 0 else 0)
    return int(persistent + max(b.peak[p], b.dynamic[p] + need) - a.cap[p])


@leaf
def _storage_read(a: Arrays, b: Ledger, device: Ints, t: int, p: int) -> int:
    """The storage that an op on device `p` reads tensor `t` from."""
    if a.t_ticks[t] == TOKEN or device[a.t_op[t]] == p:
        return int(b.storage[t])
    return int(len(a.t_op) + copy_at(a, b, t, p))


@leaf
def _release(a: Arrays, b: Ledger, storage: int, p: int) -> None:
    b.holders[storage] -= 1
    if b.holders[storage] == 0:
        tensors = len(a.t_op)
        b.eased[p] = 1
        b.dynamic[p] -= a.t_size[storage] if storage < tensors else a.t_bytes[b.copy_tensor[storage - tensors]]


@leaf
def commit(a: Arrays, b: Ledger, device: Ints, group_persistent: Ints, i: int, p: int) -> None:
    """Place op `i`, whose new copies are entered already, on device `p` and start it."""
    tensors = len(a.t_op)
    g = a.group[i]
    if b.home[g] < 0:
        b.home[g] = p
        b.persistent[p] += group_persistent[g]
        b.eased[:] = 1
    device[i] = p
    b.eased[p] = 1
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
            for copy in range(b.copy_ptr[t], b.copy_ptr[t + 1]):
                if b.copy_device[copy] >= 0 and b.holders[tensors + copy] > 0:
                    _release(a, b, tensors + copy, b.copy_device[copy])


@leaf
def finish(a: Arrays, b: Ledger, device: Ints, i: int) -> None:
    """Free what op `i`, which ends now, was the last to hold."""
    p = device[i]
    b.eased[p] = 1
    b.dynamic[p] -= a.temp[i]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        _release(a, b, _storage_read(a, b, device, a.in_t[k], p), p)
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        _release(a, b, b.storage[t], p)
