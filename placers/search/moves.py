"""What a search may try next: groups that change their device, and ops that change their turn."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import NONE, leaf, maker
from baechi.cost.problem import Arrays, Ints
from baechi.sim.transfers import transfer_ticks

__all__ = ["Moves", "apply", "new_moves", "new_turn", "propose", "set_turn", "undo"]

_MOST = 256
_FARTHEST = 256  # turns by which an op moves at most


class Moves(NamedTuple):
    """Room for one move, and what the choice of the next one needs.

    Attributes:
        group, to, was: (moved groups,) which groups go where, and where they were.
        marked: (groups,) number of the last flood that reached a group; its own number last.
        weight: (tensors,) ticks of a transfer on a typical link.
        lightest, heaviest: of the weights above 0, as logarithms.
    """

    group: Ints
    to: Ints
    was: Ints
    marked: Ints
    weight: Ints
    lightest: float
    heaviest: float


@maker
def new_moves(a: Arrays) -> Moves:
    """Nothing moved yet."""
    groups, tensors = len(a.group_ptr) - 1, len(a.t_op)
    weight = np.zeros(tensors, np.int64)
    lightest, heaviest = 1e18, 1.0
    for t in range(tensors):
        weight[t] = transfer_ticks(a, t, 0, len(a.cap) - 1)
        if weight[t] > 0:
            lightest, heaviest = min(lightest, float(weight[t])), max(heaviest, float(weight[t]))
    room = min(_MOST, groups) + 2
    return Moves(
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.zeros(groups + 1, np.int64),
        weight,
        np.log(min(lightest, heaviest)),
        np.log(heaviest),
    )


@leaf
def apply(home: Ints, m: Moves, count: int) -> None:
    """Carry out the first `count` entries of a move."""
    for k in range(count):
        m.was[k] = home[m.group[k]]
        home[m.group[k]] = m.to[k]


@leaf
def undo(home: Ints, m: Moves, count: int) -> None:
    """Take back what `apply` did."""
    for k in range(count - 1, -1, -1):
        home[m.group[k]] = m.was[k]


@leaf
def propose(a: Arrays, home: Ints, sequence: Ints, source: int, target: int, m: Moves) -> int:
    """Choose groups to move; returns how many, 0 when the dice fell badly.

    One group to any device; one to where a tensor of it comes from or goes to; two that change
    places; a run of neighbours in the sequence, which carries whole blocks of a model; or all that
    hang together by tensors that are dear to send, which no single move could part from.

    Args:
        source, target: devices to take from and to give to, or -1 for any; with a source, runs and
            what hangs together only.
    """
    kind = np.random.random()
    if source >= 0:
        kind = 0.55 + 0.45 * kind
    if kind < 0.2:
        return _one(a, home, np.random.randint(len(home)), np.random.randint(len(a.cap)), m)
    if kind < 0.5:
        return _pull(a, home, m)
    if kind < 0.6 and source < 0:
        return _swap(a, home, m)
    if target < 0:
        target = np.random.randint(len(a.cap))
    if kind < 0.85:
        return _run(a, home, sequence, source, target, m)
    return _flood(a, home, source, target, m)


@leaf
def _one(a: Arrays, home: Ints, g: int, to: int, m: Moves) -> int:
    m.group[0], m.to[0] = g, to
    return 1 if home[g] != to else 0


@leaf
def _pull(a: Arrays, home: Ints, m: Moves) -> int:
    if len(a.in_t) == 0:
        return 0
    k = np.random.randint(len(a.rank))
    reads = a.in_ptr[k + 1] - a.in_ptr[k]
    if reads == 0:
        return 0
    g = a.group[k]
    h = a.group[a.t_op[a.in_t[a.in_ptr[k] + np.random.randint(reads)]]]
    if np.random.randint(2) == 0:
        return _one(a, home, g, home[h], m)
    return _one(a, home, h, home[g], m)


@leaf
def _swap(a: Arrays, home: Ints, m: Moves) -> int:
    g, h = np.random.randint(len(home)), np.random.randint(len(home))
    if home[g] == home[h]:
        return 0
    m.group[0], m.to[0] = g, home[h]
    m.group[1], m.to[1] = h, home[g]
    return 2


@leaf
def _run(a: Arrays, home: Ints, sequence: Ints, source: int, target: int, m: Moves) -> int:
    """A run of groups from one device, neighbours in the sequence among that device's."""
    length = min(1 << np.random.randint(7), len(m.group))
    at = np.random.randint(len(sequence))
    count = 0
    for step in range(len(sequence)):
        g = a.group[sequence[(at + step) % len(sequence)]]
        if source < 0 and home[g] != target:
            source = home[g]
        if home[g] != source or source == target or (count > 0 and m.group[count - 1] == g):
            continue
        m.group[count], m.to[count] = g, target
        count += 1
        if count == length:
            break
    return count


@leaf
def _flood(a: Arrays, home: Ints, source: int, target: int, m: Moves) -> int:
    """A group and all on its device that hang on it by tensors dearer than a random price."""
    i = np.random.randint(len(a.rank))
    g = a.group[i]
    if home[g] == target or (source >= 0 and home[g] != source):
        return 0
    price = np.exp(m.lightest + np.random.random() * (m.heaviest - m.lightest))
    m.marked[-1] += 1
    m.marked[g] = m.marked[-1]
    m.group[0], m.to[0] = g, target
    done, count = 0, 1
    while done < count:
        g = m.group[done]
        done += 1
        for s in range(a.group_ptr[g], a.group_ptr[g + 1]):
            i = a.group_op[s]
            for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
                if m.weight[a.in_t[k]] > price:
                    count = _reach(a, home, a.t_op[a.in_t[k]], home[g], target, count, m)
            for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
                if m.weight[t] > price:
                    for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
                        count = _reach(a, home, a.rd_op[r], home[g], target, count, m)
    return count


@leaf
def _reach(a: Arrays, home: Ints, i: int, source: int, target: int, count: int, m: Moves) -> int:
    g = a.group[i]
    if home[g] != source or m.marked[g] == m.marked[-1] or count == len(m.group):
        return count
    m.marked[g] = m.marked[-1]
    m.group[count], m.to[count] = g, target
    return count + 1


@leaf
def new_turn(a: Arrays, turn: Ints, i: int) -> int:
    """A random position for op `i` that keeps the sequence topological, or -1."""
    first, last = NONE, len(turn)
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        first = max(first, turn[a.t_op[a.in_t[k]]])
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            last = min(last, turn[a.rd_op[r]])
    first, last = max(first, turn[i] - _FARTHEST), min(last, turn[i] + _FARTHEST)
    if last - first < 3:
        return -1
    to = first + 1 + np.random.randint(last - first - 1)
    return int(to if to != turn[i] else -1)


@leaf
def set_turn(sequence: Ints, turn: Ints, i: int, to: int) -> None:
    """Give op `i` another position; those between move up or down by one."""
    at = turn[i]
    step = 1 if to > at else -1
    while at != to:
        sequence[at] = sequence[at + step]
        turn[sequence[at]] = at
        at += step
    sequence[to] = i
    turn[i] = to
