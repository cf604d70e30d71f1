"""Who works when in a pipeline: the order of each device's work, and of the ops that it is made of."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import Arrays, Ints
from baechi.placers.stages import BACKWARD, FORWARD, WEIGHT

__all__ = ["Rules", "alternating", "order", "timetable"]

_NEVER = 2**62


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
