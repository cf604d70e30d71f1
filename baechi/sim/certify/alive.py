"""What memory must hold while an op runs, in any plan, and on whose device."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import Arrays, Ints

__all__ = ["Alive", "Views", "alive_while", "heaviest", "views_of"]


class Views(NamedTuple):
    """What tensors are views of.

    Attributes:
        root: (tensors,) the tensor whose storage it shares, itself if it is no view.
        least: (tensors,) the fewest bytes of the views on the way: all that a copy may take.
        home: (tensors,) the group in which the root and all views on the way are made, or -1.
    """

    root: Ints
    least: Ints
    home: Ints


@kernel
def views_of(a: Arrays) -> Views:
    """The views of a problem."""
    root, least, home = np.arange(len(a.t_op)), a.t_bytes.copy(), a.group[a.t_op]
    for i in a.order:
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            base = a.t_base[t]
            if base >= 0:
                root[t], least[t] = root[base], min(least[t], least[base])
                home[t] = home[t] if home[t] == home[base] else -1
    return Views(root, least, home)


class Alive(NamedTuple):
    """Bytes that all plans hold while an op runs, besides what persists.

    Attributes:
        held: (groups,) on the device of each group.
        elsewhere: on any devices.
    """

    held: Ints
    elsewhere: int


@kernel
def alive_while(a: Arrays, views: Views, op: int) -> Alive:
    """What is alive while an op runs; O(ops + reads) time.

    All ops before it have run and none that waits for it has. A tensor between the two is held where it is
    made, or a copy of it where it will be read; if maker and reader are of one group, on that group's device.
    """
    held = np.zeros(len(a.group_ptr) - 1, np.int64)
    return Alive(held, _alive(a, views, op, held))


@kernel
def heaviest(a: Arrays, views: Views, ops: Ints) -> tuple[Ints, Ints, Ints]:
    """For each of the ops: bytes alive while it runs, the group that then holds most, and its bytes, persistent too."""
    total, worst, most = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.int64), np.zeros(len(ops), np.int64)
    held = np.zeros(len(a.group_ptr) - 1, np.int64)
    persistent = np.zeros(len(held), np.int64)
    for i in range(len(a.group)):
        persistent[a.group[i]] += a.persistent[i]
    for k in range(len(ops)):
        held[:] = persistent
        total[k] = _alive(a, views, ops[k], held) + held.sum()
        worst[k] = np.argmax(held)
        most[k] = held[worst[k]]
    return total, worst, most


@maker
def _alive(a: Arrays, views: Views, op: int, held: Ints) -> int:
    """Add to `held` what groups hold while the op runs; returns what is held elsewhere."""
    before, after = np.zeros(len(a.rank), np.bool_), np.zeros(len(a.rank), np.bool_)
    before[op] = after[op] = True
    for k in range(a.rank[op], -1, -1):
        i = a.order[k]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                before[i] |= before[a.rd_op[r]]
    for k in range(a.rank[op], len(a.order)):
        i = a.order[k]
        for x in range(a.in_ptr[i], a.in_ptr[i + 1]):
            after[i] |= after[a.t_op[a.in_t[x]]]
    before[op] = False
    held[a.group[op]] += a.temp[op]
    for t in range(a.out_ptr[op], a.out_ptr[op + 1]):
        held[a.group[op]] += a.t_size[t]
    local, read, other = (
        np.zeros(len(a.t_op), np.int64),
        np.zeros(len(a.t_op), np.int64),
        np.zeros(len(a.t_op), np.int64),
    )
    for t in range(len(a.t_op)):
        root = views.root[t]
        if not before[a.t_op[t]] or a.t_size[root] == 0:
            continue
        nbytes = min(views.least[t], a.t_size[root])
        if a.t_keep[t]:
            other[root] = max(other[root], nbytes)
        for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[r]
            if not after[reader]:
                continue
            if views.home[t] == a.group[reader]:
                local[root] = max(local[root], a.t_size[root])
            elif reader == op:
                read[root] = max(read[root], nbytes)
            else:
                other[root] = max(other[root], nbytes)
    return _settle(a, op, held, local, read, other)


@leaf
def _settle(a: Arrays, op: int, held: Ints, local: Ints, read: Ints, other: Ints) -> int:
    """Count each storage once: on its maker's device, else on the op's, else anywhere."""
    elsewhere = 0
    for t in range(len(local)):
        if local[t] > 0:
            held[a.group[a.t_op[t]]] += local[t]
        elif read[t] > 0:
            held[a.group[op]] += read[t]
        else:
            elsewhere += other[t]
    return elsewhere
