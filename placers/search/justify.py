"""Local search on the sequence alone: list scheduling forwards and backwards in turn, which takes up slack."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import LATENCY, Arrays, Ints
from baechi.placers.search.moves import new_turn, set_turn
from baechi.placers.search.sweep import is_exact
from baechi.sim.evaluate import Schedule, score
from baechi.sim.transfers import transfer_ticks

__all__ = ["justify", "passes_for"]

_LEAST_TRIES = 20
_MOST_TRIES = 50  # for each op
_MOST_OPS = 3000
_MOST_MOVES = 8  # of ops in the sequence, for one try
_PASSES = 3  # of a try


class _Edges(NamedTuple):
    """Whom each op waits for, and which tensor it waits for; read backwards, who waits for it."""

    ptr: Ints
    op: Ints
    tensor: Ints


def passes_for(a: Arrays, work: float) -> int:
    """Tries of `justify` that visit about `work` ops and reads; none where its passes do not tell the makespan."""
    visits = _PASSES * len(a.cap) * (len(a.rank) + len(a.in_t) + 1)
    tries = min(work / visits, _MOST_TRIES * len(a.rank))
    fit = a.objective == LATENCY and len(a.rank) <= _MOST_OPS and tries >= _LEAST_TRIES
    return int(tries) if fit and is_exact(a) else 0


def justify(a: Arrays, schedule: Schedule, *, tries: int, seed: int, bound: int = 0) -> Schedule:
    """Give some ops other turns, then list them forwards, backwards and forwards again; keep what is no worse.

    Each pass takes the ops in the order in which the one before it ended them, and puts each where it
    ends first. So all ops move as far as they can to the end of the step, then to its start, which
    takes up slack (double justification). Where transfers are dear, moves of groups find more.

    Args:
        a: the problem, in which `is_exact` holds.
        schedule: where to start; only its sequence counts.
        tries: changes to try; O(devices x (ops + reads)) each.
        seed: of the choice of changes.
        bound: ticks at which to stop.

    Returns:
        The best schedule seen, by `score`; the start when nothing is better.

    Source: Valls, Ballestin, Quintanilla, "Justification and RCPSP: a technique that pays" (EJOR 2005).
    """
    if len(a.cap) < 2 or len(a.rank) == 0:
        return schedule
    into = _Edges(a.in_ptr, a.t_op[a.in_t], a.in_t)
    out = _Edges(a.rd_ptr[a.out_ptr], a.rd_op, np.repeat(np.arange(len(a.t_op)), np.diff(a.rd_ptr)))
    device, sequence = _search(a, into, out, schedule.sequence.copy(), tries, seed, bound)
    return min(schedule, Schedule(device, sequence), key=lambda one: score(a, one))


@kernel
def _search(
    a: Arrays, into: _Edges, out: _Edges, sequence: Ints, tries: int, seed: int, bound: int
) -> tuple[Ints, Ints]:
    np.random.seed(seed)
    ops = len(sequence)
    home, end, free = np.empty(len(a.group_ptr) - 1, np.int64), np.empty(ops, np.int64), np.empty(len(a.cap), np.int64)
    turn, line, old = np.empty(ops, np.int64), np.empty(ops, np.int64), np.empty(ops, np.int64)
    span = _list(a, into, True, sequence, home, end, free)
    best, best_home, best_sequence = span, home.copy(), sequence.copy()
    for _ in range(tries):
        if best <= bound:
            break
        for k in range(ops):
            old[k] = sequence[k]
            turn[sequence[k]] = k
        for _ in range(1 + np.random.randint(_MOST_MOVES)):
            i = np.random.randint(ops)
            to = new_turn(a, turn, i)
            if to >= 0:
                set_turn(sequence, turn, i, to)
        _list(a, into, True, sequence, home, end, free)
        _last_first(sequence, end, line)
        _list(a, out, False, line, home, end, free)
        _last_first(line, end, sequence)
        new = _list(a, into, True, sequence, home, end, free)
        if new > span:
            sequence[:] = old
            continue
        span = new
        if span < best:
            best, best_home[:], best_sequence[:] = span, home, sequence
    return best_home[a.group], best_sequence


@leaf
def _last_first(sequence: Ints, end: Ints, line: Ints) -> None:
    """The ops from the last to end to the first; of equals the later in the sequence first, as it may wait."""
    for k in range(len(sequence)):
        i = sequence[len(sequence) - 1 - k]
        at = k
        while at > 0 and end[line[at - 1]] < end[i]:
            line[at] = line[at - 1]
            at -= 1
        line[at] = i


@leaf
def _list(a: Arrays, e: _Edges, forwards: bool, sequence: Ints, home: Ints, end: Ints, free: Ints) -> int:
    """Put each op where it ends first, of such devices on that which has waited least; returns the makespan.

    The first op of a group takes the others with it. Backwards, all times count from the end of the step.
    """
    for g in range(len(home)):
        home[g] = -1
    for d in range(len(free)):
        free[d] = 0
    span = 0
    for k in range(len(sequence)):
        i = sequence[k]
        g = a.group[i]
        best, best_end = -1, 0
        for d in range(len(free)):
            if home[g] >= 0 and home[g] != d:
                continue
            start = free[d]
            for r in range(e.ptr[i], e.ptr[i + 1]):
                other = home[a.group[e.op[r]]]
                there = end[e.op[r]]
                if other != d:
                    source, to = (other, d) if forwards else (d, other)
                    there += transfer_ticks(a, e.tensor[r], source, to)
                start = max(start, there)
            stop = start + a.ticks[i, d]
            if best < 0 or stop < best_end or (stop == best_end and free[d] > free[best]):
                best, best_end = d, stop
        home[g] = best
        end[i] = free[best] = best_end
        span = max(span, best_end)
    return int(span)
