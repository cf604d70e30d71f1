"""Local search on a schedule: move colocation groups between devices while that helps."""

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import Arrays, Ints
from baechi.sim.evaluate import Schedule, play_in

__all__ = ["improve", "tries_for"]

_LONGEST_MOVE = 64
_FIRST_PRICE = 5.0  # makespans that all caps together are worth
_RISE = 200  # tries after which bytes over the caps cost twice as much
_SLACK = 0.003


def tries_for(a: Arrays, work: float = 1e7) -> int:
    """Moves to try, so that simulating them all takes about `work` events, from 150 to 8,000."""
    return int(np.clip(work / (len(a.rank) + len(a.in_t) + 1), 150, 8000))


def improve(a: Arrays, schedule: Schedule, *, tries: int, seed: int) -> Schedule:
    """Move runs of groups, neighbours in the sequence, to other devices.

    Threshold accepting (Dueck and Scheuer 1990): a move is kept when its cost is at most a little
    above the present one, and ever less so. The cost is the makespan plus a price on bytes over
    the caps, which rises while no schedule that fits has been found. The sequence stays, so no
    order can ever wait for itself.

    Args:
        a: the problem; the ops of a group move together.
        schedule: where to start; a group that it splits goes to the device of one of its ops.
        tries: simulated moves.
        seed: of the choice of moves.

    Returns:
        The best schedule seen, by `score`, its transfers left to the simulator. When there are no
        more placements than tries, it is the best of all in this sequence.
    """
    home = np.empty(len(a.group_ptr) - 1, np.int64)
    home[a.group] = schedule.device
    if len(a.cap) ** min(len(home), 60) <= tries:
        best = _try_all(a, home, schedule.sequence)
    else:
        best = _search(a, home, schedule.sequence, tries, seed)
    return Schedule(best[a.group], schedule.sequence)


@kernel
def _search(a: Arrays, home: Ints, sequence: Ints, tries: int, seed: int) -> Ints:
    np.random.seed(seed)
    devices = len(a.cap)
    peak, span = play_in(a, home[a.group], sequence)
    excess = _excess(a, peak)
    best, best_excess, best_span = home.copy(), excess, span
    moved = np.empty(_LONGEST_MOVE, np.int64)
    price = _FIRST_PRICE * span / a.cap.sum()
    for k in range(tries):
        if devices < 2 or len(sequence) == 0:
            break
        if k % _RISE == _RISE - 1 and best_excess > 0:
            price *= 2.0
        source = _source(a, peak, excess)
        target = _target(a, peak, source, excess)
        count = _pick(a, home, sequence, source, target, moved)
        if count == 0:
            continue
        origin = home[moved[0]]
        for m in range(count):
            home[moved[m]] = target
        new_peak, new_span = play_in(a, home[a.group], sequence)
        new_excess = _excess(a, new_peak)
        slack = 1.0 + _SLACK * (1.0 - k / tries)
        if new_span + price * new_excess <= (span + price * excess) * slack:
            peak, span, excess = new_peak, new_span, new_excess
            if excess < best_excess or (excess == best_excess and span < best_span):
                best, best_excess, best_span = home.copy(), excess, span
        else:
            for m in range(count):
                home[moved[m]] = origin
    return best


@kernel
def _try_all(a: Arrays, home: Ints, sequence: Ints) -> Ints:
    devices = len(a.cap)
    best = home.copy()
    peak, best_span = play_in(a, home[a.group], sequence)
    best_excess = _excess(a, peak)
    for number in range(devices ** len(home)):
        for g in range(len(home)):
            home[g] = number % devices
            number //= devices
        peak, span = play_in(a, home[a.group], sequence)
        excess = _excess(a, peak)
        if excess < best_excess or (excess == best_excess and span < best_span):
            best, best_excess, best_span = home.copy(), excess, span
    return best


@leaf
def _excess(a: Arrays, peak: Ints) -> int:
    excess = 0
    for d in range(len(a.cap)):
        excess += max(0, peak[d] - a.cap[d])
    return int(excess)


@leaf
def _source(a: Arrays, peak: Ints, excess: int) -> int:
    """A device to take from: one that is over its cap, or any (-1)."""
    if excess == 0:
        return -1
    d = np.random.randint(len(a.cap))
    while peak[d] <= a.cap[d]:
        d = (d + 1) % len(a.cap)
    return int(d)


@leaf
def _target(a: Arrays, peak: Ints, source: int, excess: int) -> int:
    """A device to give to: when memory is short, mostly one with room."""
    d = np.random.randint(len(a.cap))
    if excess > 0 and np.random.randint(4) > 0:
        for _ in range(len(a.cap)):
            if peak[d] < a.cap[d]:
                break
            d = (d + 1) % len(a.cap)
    return int((d + 1) % len(a.cap) if d == source else d)


@leaf
def _pick(a: Arrays, home: Ints, sequence: Ints, source: int, target: int, moved: Ints) -> int:
    """Groups to move: a run of a random length from a random place on, all from one device.

    Half of the time the run has one group, next to one that is on the target already if there is
    a choice; long runs carry whole blocks of a model.
    """
    length = 1 if np.random.randint(2) == 0 else 1 << np.random.randint(7)
    at = np.random.randint(len(sequence))
    count = 0
    for step in range(len(sequence)):
        g = a.group[sequence[(at + step) % len(sequence)]]
        if source < 0 and home[g] != target:
            source = home[g]
        if home[g] != source or source == target:
            continue
        if count > 0 and moved[count - 1] == g:
            continue
        moved[count] = g
        count += 1
        if count == length:
            break
    return count
