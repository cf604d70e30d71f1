"""A step of micro-batches as a pipeline: its groups in a line, the line cut into stages, and who works when."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import TOKEN, Arrays, Ints

__all__ = [
    "BACKWARD",
    "FORWARD",
    "UPDATE",
    "WEIGHT",
    "Labels",
    "Rules",
    "alternating",
    "crossings",
    "cut",
    "draws",
    "early",
    "kinds",
    "order",
    "positions",
    "timetable",
]

FORWARD, BACKWARD, WEIGHT, UPDATE = range(4)
"""Kinds of work of a stage: `BACKWARD` is what other stages wait for, `WEIGHT` the rest of the backward pass."""

_NEVER = 2**62


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


class Rules(NamedTuple):
    """How a device chooses among what it could start at a moment.

    Attributes:
        first: (3,) kinds of work, the dearest first; of one kind the earliest micro-batch goes first.
        most: (devices,) copies of stages that a device may hold activations for.
        patience: how much longer a device waits for work that goes first.
    """

    first: Ints
    most: Ints
    patience: int


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


@kernel
def timetable(seconds: Ints, delay: Ints, home: Ints, copies: int, rules: Rules) -> Ints:
    """When each stage works on each micro-batch, were the step a chain of stages.

    Args:
        seconds: (3, stages) time of each kind of work on one micro-batch.
        delay: (2, stages) time from the end of a stage's forward and backward work until the next stage has it.
        home: (stages,) device of each.
        copies: number of micro-batches.
        rules: what goes first.

    Returns:
        (3, stages, copies) number of each work in the order of their starts.
    """
    stages, devices = len(home), len(rules.most)
    turn = np.empty((3, stages, copies), np.int64)
    end = np.zeros((3, stages, copies), np.int64)
    done = np.zeros((3, stages), np.int64)
    free = np.zeros(devices, np.int64)
    held = np.zeros(devices, np.int64)
    begin = np.empty((3, stages), np.int64)
    least = np.empty(devices, np.int64)
    strict = True
    count = 0
    while count < turn.size:
        least[:] = _NEVER
        for c in range(stages):
            d = home[c]
            for kind in range(3):
                begin[kind, c] = _ready(end, done, delay, kind, c)
                if begin[kind, c] == _NEVER or (strict and kind == FORWARD and held[d] >= rules.most[d]):
                    begin[kind, c] = _NEVER
                    continue
                begin[kind, c] = max(begin[kind, c], free[d])
                least[d] = min(least[d], begin[kind, c])
        device = np.argmin(least)
        strict = least[device] < _NEVER
        if not strict:
            continue  # nobody may start: one copy more than there is room for
        best, where = _NEVER, 0
        for c in range(stages):
            for kind in range(3):
                mine = (_turn(rules.first, kind) * copies + done[kind, c]) * stages + stages - 1 - c
                if home[c] == device and begin[kind, c] <= least[device] + rules.patience and mine < best:
                    best, where = mine, c * 3 + kind
        c, kind = where // 3, where % 3
        turn[kind, c, done[kind, c]] = count
        end[kind, c, done[kind, c]] = free[device] = begin[kind, c] + seconds[kind, c]
        done[kind, c] += 1
        held[device] += 1 if kind == FORWARD else -1 if kind == WEIGHT else 0
        count += 1
    return turn


@leaf
def _ready(end: Ints, done: Ints, delay: Ints, kind: int, c: int) -> int:
    """When the inputs of a stage's next work are there; `_NEVER` when they are not planned yet, or all is done."""
    k = done[kind, c]
    if k == end.shape[2]:
        return _NEVER
    if kind == WEIGHT:
        return int(end[BACKWARD, c, k]) if done[BACKWARD, c] > k else _NEVER
    other = c - 1 if kind == FORWARD else c + 1
    before = 0
    if kind == BACKWARD:
        if done[FORWARD, c] <= k:
            return _NEVER
        before = end[FORWARD, c, k]
    if 0 <= other < done.shape[1]:
        if done[kind, other] <= k:
            return _NEVER
        before = max(before, end[kind, other, k] + delay[kind, other])
    return int(before)


@leaf
def _turn(first: Ints, kind: int) -> int:
    for turn in range(3):
        if first[turn] == kind:
            return turn
    return 3


@kernel
def alternating(devices: int, rounds: int, copies: int) -> Ints:
    """The same for one forward, one backward, in the fixed order of Megatron-LM.

    Micro-batches go in groups of as many as there are devices, each group through all rounds. A device
    begins with so many forward works that it never waits in the steady state, goes on with a forward and a
    backward work in turn, and ends with the backward works that are left.

    Returns:
        As `timetable`; no copies when the devices would wait for each other.
    """
    stages = devices * rounds
    turn = np.full((3, stages, copies), np.int64(-1))
    each = rounds * copies
    at = np.zeros(devices, np.int64)
    count = 0
    going = True
    while going:
        going = False
        for d in range(devices):
            ahead = devices - 1 - d if rounds == 1 else 2 * (devices - 1 - d) + (rounds - 1) * devices
            ahead = min(ahead, each)
            while at[d] < 2 * each:
                kind, number = _alternate(at[d], ahead, each)
                group = number // (devices * rounds)
                size = min(devices, copies - group * devices)
                inner = number - group * devices * rounds
                r, k = inner // size, group * devices + inner % size
                c = d + devices * (r if kind == FORWARD else rounds - 1 - r)
                before = c - 1 if kind == FORWARD else c + 1
                if 0 <= before < stages and turn[kind, before, k] < 0:
                    break
                if kind == BACKWARD and turn[FORWARD, c, k] < 0:
                    break
                turn[kind, c, k] = count
                count += 1
                if kind == BACKWARD:
                    turn[WEIGHT, c, k] = count
                    count += 1
                at[d] += 1
                going = True
    return turn if count == turn.size else turn[:, :, :0]


@leaf
def _alternate(at: int, ahead: int, each: int) -> tuple[int, int]:
    """Kind and number of a device's work at a place in its order."""
    if at < ahead:
        return FORWARD, at
    late = at - ahead
    if late < 2 * (each - ahead):
        return (FORWARD, ahead + late // 2) if late % 2 == 0 else (BACKWARD, late // 2)
    return BACKWARD, late - (each - ahead)


@kernel
def order(a: Arrays, wanted: Ints) -> Ints:
    """The topological order nearest to a wanted order: an op is preceded by what it still waits for, no more."""
    ops = len(wanted)
    state = np.zeros(ops, np.int64)  # 0 untouched, 1 on the stack, 2 done
    sequence = np.empty(ops, np.int64)
    stack = np.empty(ops + len(a.in_t) + 1, np.int64)
    count = 0
    for root in wanted:
        stack[0] = root
        top = 1
        while top > 0:
            i = stack[top - 1]
            if state[i] == 0:
                state[i] = 1
                for k in range(a.in_ptr[i + 1] - 1, a.in_ptr[i] - 1, -1):
                    source = a.t_op[a.in_t[k]]
                    if state[source] == 0:
                        stack[top] = source
                        top += 1
            else:
                top -= 1
                if state[i] == 1:
                    state[i] = 2
                    sequence[count] = i
                    count += 1
    return sequence
