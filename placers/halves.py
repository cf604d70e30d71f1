"""The forward half of a training step, each op charged with what will follow it.

What is to be placed is a third of the size, and a backward op sits where the activations that it
reads already are. Right when memory is ample; under tight caps the joint graph places better
(Baechi, extended version, section 4).
"""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.cost.tensors import buckets
from baechi.placers.colocated import Bools, Marks

__all__ = ["Half", "forward_half", "hosts_of"]


class Half(NamedTuple):
    """A smaller problem and what it stands for.

    Attributes:
        arrays: of the forward ops alone, in program order.
        op: (forward ops,) the op of the whole step that each one is.
        follows: (ops,) the forward op whose device each op of the whole step takes.
    """

    arrays: Arrays
    op: Ints
    follows: Ints


def forward_half(a: Arrays, marks: Marks, views: Bools, owner: Ints) -> Half | None:
    """The forward half of a step, or None where no op is of the forward phase and waits for such only.

    An op pays the time and persistent bytes of what follows it, and the working memory that the largest of
    it needs. What is there before the step, such as a parameter, takes no time: the op that reads it
    pays for its update. Activations that a later phase reads are kept to the end of the step.

    Args:
        a: the whole step.
        marks: of its ops.
        views: (ops,) ops that read something and make nothing but views.
        owner: (tensors,) the tensor whose memory each one lies in.
    """
    host = hosts_of(a, marks.forward, marks.twin)
    op = np.flatnonzero(host == np.arange(len(host)))
    if len(op) == 0:
        return None
    payer = _payers(a, host, marks.given, views)
    number = np.full(len(host), -1, np.int64)
    number[op] = np.arange(len(op))
    follows = number[host]
    later = np.flatnonzero(host != np.arange(len(host)))
    pays = number[payer[host[later]]]
    ticks, persistent, temp = a.ticks[op], a.persistent[op], a.temp[op]
    np.add.at(ticks, pays, a.ticks[later])
    np.add.at(persistent, follows[later], a.persistent[later])
    made = np.bincount(a.t_op, a.t_size, len(host)).astype(np.int64)
    np.maximum.at(temp, pays, (a.temp + made)[later])
    return Half(_part(a, op, number, ticks, persistent, temp, _read_later(a, host, owner)), op, follows)


@kernel
def hosts_of(a: Arrays, forward: Bools, twin: Ints) -> Ints:
    """By op, the forward op whose device it takes, or -1 when there is none; a forward op is its own.

    An op takes after, in this order: a forward op of its colocation group, what another member of
    its group took after, its twin, the maker of the largest of its inputs, and an op that reads it.
    """
    ops = len(a.rank)
    host = np.full(ops, -1, np.int64)
    first = -1
    for i in a.order:
        own = forward[i]
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            own = own and host[a.t_op[a.in_t[k]]] >= 0
        if own:
            host[i] = i
            first = i if first < 0 else first
    if first < 0:
        return host
    of_group = np.full(len(a.group_ptr) - 1, -1, np.int64)
    for i in range(ops - 1, -1, -1):
        if host[i] >= 0:
            of_group[a.group[i]] = i
    for i in a.order:
        if host[i] < 0:
            with_twin = twin[i] >= 0 and host[twin[i]] >= 0
            _settle(a, host, of_group, i, host[twin[i]] if with_twin else _from_inputs(a, host, i))
    for k in range(ops - 1, -1, -1):
        if host[a.order[k]] < 0:
            _settle(a, host, of_group, a.order[k], _from_readers(a, host, a.order[k]))
    for i in a.order:
        if host[i] < 0:
            found = _from_inputs(a, host, i)
            _settle(a, host, of_group, i, found if found >= 0 else first)
    return host


@leaf
def _settle(a: Arrays, host: Ints, of_group: Ints, i: int, found: int) -> None:
    g = a.group[i]
    choice = of_group[g] if of_group[g] >= 0 else found
    if choice >= 0:
        host[i] = of_group[g] = choice


@leaf
def _from_inputs(a: Arrays, host: Ints, i: int) -> int:
    found, most = -1, -1
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        t = a.in_t[k]
        known = host[a.t_op[t]]
        nbytes = -1 if a.t_ticks[t] == TOKEN else a.t_bytes[t]
        if known >= 0 and (found < 0 or nbytes > most):
            found, most = known, nbytes
    return int(found)


@leaf
def _from_readers(a: Arrays, host: Ints, i: int) -> int:
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        if a.t_ticks[t] != TOKEN:
            for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                if host[a.rd_op[k]] >= 0:
                    return int(host[a.rd_op[k]])
    return -1


@kernel
def _payers(a: Arrays, host: Ints, given: Bools, views: Bools) -> Ints:
    """By forward op, the one that the time of its followers is charged to.

    Itself, but for what is there before the step begins, and views of that: readers would wait for it.
    """
    early = np.zeros(len(host), np.bool_)
    for i in a.order:
        if host[i] == i:
            above = views[i]
            for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
                above = above and (a.t_ticks[a.in_t[k]] == TOKEN or early[a.t_op[a.in_t[k]]])
            early[i] = given[i] or above
    payer = np.full(len(host), -1, np.int64)
    for at in range(len(host) - 1, -1, -1):
        i = a.order[at]
        if host[i] == i:
            reader = -1
            for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
                for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                    if reader < 0 and a.t_ticks[t] != TOKEN and payer[a.rd_op[k]] >= 0:
                        reader = a.rd_op[k]
            payer[i] = payer[reader] if early[i] and reader >= 0 else i
    return payer


def _read_later(a: Arrays, host: Ints, owner: Ints) -> Ints:
    """(tensors,) 1 for what is kept, what a later phase reads, and that in whose memory it lies."""
    reader = np.repeat(np.arange(len(host)), np.diff(a.in_ptr))
    read = a.in_t[host[reader] != reader]
    keep = a.t_keep.copy()
    keep[read] = keep[owner[read]] = 1
    return keep


def _part(a: Arrays, op: Ints, number: Ints, ticks: Ints, persistent: Ints, temp: Ints, keep: Ints) -> Arrays:
    """The arrays of some ops, which read nothing from others; readers that are left out are gone."""
    tensor, out_ptr = _rows(a.out_ptr, op)
    t_number = np.full(len(a.t_op), -1, np.int64)
    t_number[tensor] = np.arange(len(tensor))
    reads, in_ptr = _rows(a.in_ptr, op)
    in_t = t_number[a.in_t[reads]]
    rd_ptr, at = buckets(in_t, len(tensor))
    rank = np.argsort(np.argsort(a.rank[op]))
    t_base = a.t_base[tensor]
    group = np.unique(a.group[op], return_inverse=True)[1].astype(np.int64)
    group_ptr, group_op = buckets(group, int(group.max()) + 1)
    return a._replace(
        ticks=ticks,
        persistent=persistent,
        temp=temp,
        rank=rank,
        order=np.argsort(rank),
        group=group,
        group_ptr=group_ptr,
        group_op=group_op,
        out_ptr=out_ptr,
        t_op=number[a.t_op[tensor]],
        t_bytes=a.t_bytes[tensor],
        t_size=a.t_size[tensor],
        t_base=np.where(t_base >= 0, t_number[t_base], -1),
        t_keep=keep[tensor],
        t_ticks=a.t_ticks[tensor],
        in_ptr=in_ptr,
        in_t=in_t,
        rd_ptr=rd_ptr,
        rd_op=np.repeat(np.arange(len(op)), np.diff(in_ptr))[at],
    )


def _rows(ptr: Ints, kept: Ints) -> tuple[Ints, Ints]:
    """The rows of some of the entries that `ptr` delimits, and pointers to them."""
    count = np.diff(ptr)[kept]
    new = np.concatenate([[0], np.cumsum(count)])
    return np.arange(int(new[-1])) + np.repeat(ptr[kept] - new[:-1], count), new
