"""A step of micro-batches as a pipeline: its groups in a line, and the line cut into stages."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import TOKEN, Arrays, Ints, Problem

__all__ = [
    "BACKWARD",
    "FORWARD",
    "UPDATE",
    "WEIGHT",
    "Labels",
    "crossings",
    "cut",
    "draws",
    "early",
    "kinds",
    "labels_of",
    "positions",
]

FORWARD, BACKWARD, WEIGHT, UPDATE = range(4)
"""Kinds of work of a stage: `BACKWARD` is what other stages wait for, `WEIGHT` the rest of the backward pass."""

_NEVER = 2**62
_KIND = {"forward": FORWARD, "backward": BACKWARD, "update": UPDATE}


class Labels(NamedTuple):
    """What the IR says of each op.

    Attributes:
        copy: (ops,) micro-batch, or -1.
        phase: (ops,) `FORWARD`, `BACKWARD` or `UPDATE`.
        twin: (ops,) index of the forward op that it belongs to, or -1.
        early: (ops,) whether it is there from the start: free, and made from nothing that is not.
    """

    copy: Ints
    phase: Ints
    twin: Ints
    early: Ints


def labels_of(problem: Problem) -> Labels:
    """The labels of a step's ops."""
    ops = problem.graph.ops
    index = problem.graph.index
    return Labels(
        np.array([-1 if op.copy is None else op.copy for op in ops], np.int64),
        np.array([_KIND[op.phase] for op in ops], np.int64),
        np.array([index.get(op.forward or "", -1) for op in ops], np.int64),
        early(problem.arrays),
    )


@kernel
def positions(a: Arrays, n: Labels) -> Ints:
    """Place of each group in the line: the rank of its first forward op; the backward pass runs back along it.

    A group without forward ops takes the place of what its ops belong to: their twin, else the last of the
    activations that they read, else the gradient. What is there from the start is placed with its first reader.
    """
    place = np.full(len(a.group_ptr) - 1, _NEVER)
    for i in a.order:
        if n.phase[i] == FORWARD and n.copy[i] <= 0 and not n.early[i]:
            place[a.group[i]] = min(place[a.group[i]], a.rank[i])
    for i in a.order:
        if place[a.group[i]] == _NEVER and not n.early[i] and n.phase[i] != UPDATE:
            place[a.group[i]] = _from_twin(a, n, i, place)
    open_ = place == _NEVER
    for back in range(len(a.order) - 1, -1, -1):
        i = a.order[back]
        if open_[a.group[i]]:
            for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
                for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                    place[a.group[i]] = min(place[a.group[i]], place[a.group[a.rd_op[k]]])
    for i in a.order:
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            if place[a.group[i]] == _NEVER:
                place[a.group[i]] = place[a.group[a.t_op[a.in_t[k]]]]
    return np.where(place == _NEVER, 0, place)


@leaf
def _from_twin(a: Arrays, n: Labels, i: int, place: Ints) -> int:
    if n.twin[i] >= 0 and place[a.group[n.twin[i]]] != _NEVER:
        return int(place[a.group[n.twin[i]]])
    activation, gradient = -1, _NEVER
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        source = a.t_op[a.in_t[k]]
        here = place[a.group[source]]
        if here != _NEVER and n.phase[source] == FORWARD and not n.early[source]:
            activation = max(activation, here)
        elif here != _NEVER and not n.early[source]:
            gradient = min(gradient, here)
    return int(activation if activation >= 0 else gradient)


@kernel
def early(a: Arrays) -> Ints:
    """(ops,) whether an op is there from the start: free, and made from nothing that is not."""
    found = np.zeros(len(a.rank), np.bool_)
    for i in a.order:
        found[i] = a.ticks[i].max() == 0
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            found[i] = found[i] and found[a.t_op[a.in_t[k]]]
    return found


@kernel
def draws(a: Arrays, n: Labels) -> Ints:
    """(ops,) whether an op of a copy waits for others of its kind and for no data, as one that draws random numbers."""
    found = np.zeros(len(a.rank), np.bool_)
    for i in range(len(found)):
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            found[i] = found[i] or a.t_ticks[t] == TOKEN
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            found[i] = found[i] or a.t_ticks[a.in_t[k]] == TOKEN
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            found[i] = found[i] and (a.t_ticks[a.in_t[k]] == TOKEN or n.early[a.t_op[a.in_t[k]]])
        found[i] = found[i] and n.copy[i] >= 0 and n.phase[i] == FORWARD
    return found


@kernel
def crossings(a: Arrays, n: Labels, place: Ints, cost: Ints) -> Ints:
    """(2, groups + 1) what is sent across a cut before each place in the line, forward and backward, for one copy.

    Args:
        place: (groups,) position in the line, from 0 on without gaps.
        cost: (tensors,) time of a transfer.
    """
    crossing = np.zeros((2, len(place) + 1), np.int64)
    for t in range(len(a.t_op)):
        source = a.t_op[t]
        if n.copy[source] > 0 or n.phase[source] == UPDATE or a.t_ticks[t] == TOKEN:
            continue
        low = high = place[a.group[source]]
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            low = min(low, place[a.group[a.rd_op[k]]])
            high = max(high, place[a.group[a.rd_op[k]]])
        if n.phase[source] == FORWARD:
            crossing[FORWARD, low + 1] += cost[t]
            crossing[FORWARD, high + 1] -= cost[t]
        else:
            crossing[BACKWARD, low + 1] += cost[t]
            crossing[BACKWARD, high + 1] -= cost[t]
    for j in range(len(place)):
        crossing[:, j + 1] += crossing[:, j]
    return crossing


@kernel
def cut(load: Ints, crossing: Ints, share: Ints, slack: float) -> Ints:
    """Cut a line into pieces of nearly equal load where little crosses.

    The smallest limit is found by bisection under which the line can be cut so that piece c has at most
    limit x share[c]; then, with a limit that is `slack` higher, dynamic programming finds the cuts with the
    least crossing them. O(items x pieces).

    Args:
        load: of each item of the line.
        crossing: (items + 1,) what a cut before each item costs.
        share: of each piece.
        slack: 0.1 is a tenth.

    Returns:
        The piece of each item.
    """
    items, pieces = len(load), len(share)
    total = np.zeros(items + 1)
    for i in range(items):
        total[i + 1] = total[i] + load[i]
    low, high = total[items] / share.sum(), total[items] / share.min() + 1.0
    for _ in range(60):
        limit = (low + high) / 2
        if _reach(total, share, limit) >= items:
            high = limit
        else:
            low = limit
    limit = high * (1.0 + slack)
    best = np.full((pieces + 1, items + 1), np.inf)
    where = np.zeros((pieces + 1, items + 1), np.int64)
    best[0, 0] = 0.0
    window = np.empty(items + 1, np.int64)
    for c in range(pieces):
        head, tail = 0, 0
        for j in range(items + 1):
            while tail > head and best[c, window[tail - 1]] + crossing[window[tail - 1]] >= best[c, j] + crossing[j]:
                tail -= 1
            window[tail] = j
            tail += 1
            while total[j] - total[window[head]] > limit * share[c]:
                head += 1
            i = window[head]
            best[c + 1, j] = best[c, i] + (crossing[i] if c > 0 else 0.0)
            where[c + 1, j] = i
    piece = np.empty(items, np.int64)
    end = items
    for c in range(pieces, 0, -1):
        begin = where[c, end]
        piece[begin:end] = c - 1
        end = begin
    return piece


@leaf
def _reach(total: Ints, share: Ints, limit: float) -> int:
    """How many items fit when each piece takes as many as it may."""
    at = 0
    for c in range(len(share)):
        at = np.searchsorted(total, total[at] + limit * share[c], side="right") - 1
    return int(at)


@kernel
def kinds(a: Arrays, n: Labels, stage: Ints) -> Ints:
    """Kind of work of each op: a backward op that leads to no other stage is `WEIGHT`."""
    kind = n.phase.copy()
    leads = np.zeros(len(kind), np.int64)
    for back in range(len(kind) - 1, -1, -1):
        i = a.order[back]
        if n.phase[i] != BACKWARD:
            continue
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                reader = a.rd_op[k]
                if n.phase[reader] == BACKWARD and (leads[reader] or stage[reader] != stage[i]):
                    leads[i] = 1
        if not leads[i]:
            kind[i] = WEIGHT
    return kind
