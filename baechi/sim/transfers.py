"""What a placement sends from device to device, and where each tensor then lives."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import TOKEN, Arrays, Ints

__all__ = ["Transfers", "copy_of", "held_by", "storages_of", "transfer_ticks", "transfers_of"]


class Transfers(NamedTuple):
    """All transfers that a placement needs, ordered by (tensor, destination).

    Attributes:
        tensor, destination: what goes where.
        ptr: transfers of each tensor.
    """

    tensor: Ints
    destination: Ints
    ptr: Ints


@leaf
def transfer_ticks(a: Arrays, t: int, source: int, destination: int) -> int:
    """Time of one transfer of tensor `t`, alone on its link."""
    declared = a.t_ticks[t]
    if declared >= 0:
        return int(declared)
    if declared == TOKEN:
        return 0
    return int(a.latency[source, destination] + round(a.t_bytes[t] * a.ticks_per_byte[source, destination]))


@kernel
def transfers_of(a: Arrays, device: Ints) -> Transfers:
    """The transfers that a placement needs: each tensor once to each other device that reads it."""
    tensors, devices = len(a.t_op), len(a.cap)
    ptr = np.zeros(tensors + 1, np.int64)
    seen = np.full(devices, -1, np.int64)
    for fill in range(2):
        if fill == 1:
            tensor = np.empty(ptr[tensors], np.int64)
            destination = np.empty(ptr[tensors], np.int64)
        x = 0
        for t in range(tensors):
            if a.t_ticks[t] != TOKEN:
                source = device[a.t_op[t]]
                for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                    d = device[a.rd_op[k]]
                    if d != source:
                        seen[d] = 2 * t + fill
                for d in range(devices):
                    if seen[d] == 2 * t + fill:
                        if fill == 1:
                            tensor[x] = t
                            destination[x] = d
                        x += 1
            ptr[t + 1] = x
    return Transfers(tensor, destination, ptr)


@leaf
def copy_of(x: Transfers, t: int, destination: int) -> int:
    """The transfer of tensor `t` to a device, or -1."""
    for k in range(x.ptr[t], x.ptr[t + 1]):
        if x.destination[k] == destination:
            return int(k)
    return -1


@maker
def storages_of(a: Arrays, device: Ints, x: Transfers) -> tuple[Ints, Ints]:
    """Storage of each tensor and reference count of each storage.

    A storage is that of a tensor (its number) or of a received copy (behind the tensors). It is
    held by the op that makes it, its local readers and its outgoing transfers; those of a scattered
    tensor hold copies of their own.
    """
    tensors = len(a.t_op)
    storage = np.arange(tensors)
    count = np.zeros(tensors + len(x.tensor), np.int64)
    for i in a.order:
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            base = a.t_base[t]
            if base >= 0:
                if device[a.t_op[base]] == device[i]:
                    storage[t] = storage[base]
                else:
                    storage[t] = tensors + copy_of(x, base, device[i])
            count[storage[t]] += 1 + a.t_keep[t] + (x.ptr[t + 1] - x.ptr[t] if a.t_packed[t] == 0 else 0)
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            count[held_by(a, device, x, storage, i, a.in_t[k])] += 1
    return storage, count


@leaf
def held_by(a: Arrays, device: Ints, x: Transfers, storage: Ints, reader: int, t: int) -> int:
    """The storage that op `reader` reads tensor `t` from."""
    if a.t_ticks[t] == TOKEN or device[a.t_op[t]] == device[reader]:
        return int(storage[t])
    return len(a.t_op) + copy_of(x, t, device[reader])
