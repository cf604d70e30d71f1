"""Local search for the shortest step: simulated annealing on devices and turns."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import LATENCY, THROUGHPUT, Arrays, Ints
from baechi.placers.search.balance import balance
from baechi.placers.search.moves import apply, new_moves, new_turn, propose, set_turn, undo
from baechi.placers.search.resequence import resequence
from baechi.placers.search.sweep import NO_LIMIT, fastest_tails, is_exact, sweep
from baechi.sim.evaluate import Schedule, play_in, score

__all__ = ["improve", "tries_for"]

_FIRST_PRICE = 5.0  # makespans that all caps together are worth
_RISE = 200  # tries after which bytes over the caps cost twice as much
_FRESH = 2000  # tries after which the sequence is made anew
_LEAST_TRIES = 20
_MOST_TRIES = 500  # for each group
_SIMULATION = 20  # sweeps that the simulations among the tries cost, for each
_TURNS = 0.3  # share of the tries that move an op in the sequence


def tries_for(a: Arrays, work: float = 1e7) -> int:
    """Moves to try so that judging them all visits about `work` ops and reads, with a most for each group.

    Where a sweep does not say all, the simulator's visits count too. There are none when there would
    be too few of them to find anything.
    """
    visits = (len(a.rank) + len(a.in_t) + 1) * (1 if is_exact(a) else _SIMULATION)
    tries = min(work / visits, _MOST_TRIES * (len(a.group_ptr) - 1))
    return int(tries) if tries >= _LEAST_TRIES else 0


def improve(a: Arrays, schedule: Schedule, *, tries: int, seed: int, warmth: float = 0.003) -> Schedule:
    """Move groups between devices and ops in the sequence while that helps.

    Simulated annealing (Kirkpatrick et al. 1983): a move is kept when its cost is at most a random,
    ever smaller amount above the present one. The cost is the objective plus a price on bytes over
    the caps, which rises while no schedule that fits has been found. Moves are judged by one pass
    over the sequence (`sweep`) where that says all, and else, if it does not refuse them, by the
    simulator.

    Args:
        a: the problem; the ops of a group move together.
        schedule: where to start; a group that it splits goes to the device of one of its ops.
        tries: moves to judge.
        seed: of the choice of moves.
        warmth: at the start, the mean rise that is accepted, as a fraction of the objective.

    Returns:
        The best schedule seen, by `score`, its transfers left to the simulator; the start when
        nothing is better.
    """
    if len(a.cap) < 2 or len(a.rank) == 0:
        return schedule
    home = np.empty(len(a.group_ptr) - 1, np.int64)
    home[a.group] = schedule.device
    found = Schedule(home[a.group], schedule.sequence)
    if a.objective == LATENCY or score(a, found)[0] > 0:
        home, sequence = _search(a, home, schedule.sequence.copy(), tries, seed, warmth)
        found = Schedule(home[a.group], sequence)
    if a.objective == THROUGHPUT and score(a, found)[0] == 0:
        found = found._replace(device=balance(a, home, found.sequence, tries, seed, warmth)[a.group])
    return min(schedule, found, key=lambda one: score(a, one))


class _Books(NamedTuple):
    """Memory as far as it is known without simulation.

    Attributes:
        persistent: (groups,) bytes.
        held: (devices,) bytes that persist where the groups are.
        coming: the most that comes and goes on any device.
    """

    persistent: Ints
    held: Ints
    coming: int


@maker
def _books(a: Arrays, home: Ints) -> _Books:
    persistent = np.zeros(len(home), np.int64)
    held = np.zeros(len(a.cap), np.int64)
    for i in range(len(a.rank)):
        persistent[a.group[i]] += a.persistent[i]
        held[home[a.group[i]]] += a.persistent[i]
    return _Books(persistent, held, a.t_size.sum() + a.t_bytes.sum() + a.t_packed.sum() * len(a.cap) + a.temp.max())


@leaf
def _over(a: Arrays, used: Ints, more: int) -> int:
    """Bytes over the caps if every device used `more` than this."""
    excess = 0
    for d in range(len(used)):
        excess += max(0, used[d] + more - a.cap[d])
    return int(excess)


@leaf
def _hold(books: _Books, group: Ints, source: Ints, to: Ints, count: int) -> None:
    for k in range(count):
        books.held[source[k]] -= books.persistent[group[k]]
        books.held[to[k]] += books.persistent[group[k]]


@kernel
def _search(a: Arrays, home: Ints, sequence: Ints, tries: int, seed: int, warmth: float) -> tuple[Ints, Ints]:
    np.random.seed(seed)
    m, books, tail, exact = new_moves(a), _books(a, home), fastest_tails(a), is_exact(a)
    end, free = np.empty(len(sequence), np.int64), np.empty(len(a.cap), np.int64)
    turn = np.empty(len(sequence), np.int64)
    turn[sequence] = np.arange(len(sequence))
    peak, span = play_in(a, home[a.group], sequence)
    if a.objective == THROUGHPUT:  # it is not about time as long as nothing fits
        span = sweep(a, home, sequence, tail, NO_LIMIT, end, free)
    excess = _over(a, peak, 0)
    best_home, best_sequence, best_excess, best_span = home.copy(), sequence.copy(), excess, span
    price = _FIRST_PRICE * span / a.cap.sum()
    for k in range(tries):
        left = 1.0 - k / tries
        if k % _RISE == _RISE - 1 and best_excess > 0:
            price *= 2.0
        limit = span + price * excess - warmth * left * left * best_span * np.log(max(1e-300, np.random.random()))
        count, i, was = 0, -1, 0
        fresh = k % _FRESH == _FRESH - 1 and excess == 0
        if fresh:
            old = sequence.copy()
            sequence[:] = resequence(a, home, 0.3 * np.random.randint(2))
        elif np.random.random() < (_TURNS if excess == 0 else 0.1):
            i = np.random.randint(len(sequence))
            was, to = turn[i], new_turn(a, turn, i)
            if to < 0:
                continue
            set_turn(sequence, turn, i, to)
        else:
            source = _full(a, peak, excess)
            count = propose(a, home, sequence, source, _roomy(a, peak, source, excess), m)
            if count == 0:
                continue
            apply(home, m, count)
            _hold(books, m.group, m.was, m.to, count)
        sure = _over(a, books.held, 0)
        new_excess = sure
        new_span = sweep(a, home, sequence, tail, int(min(limit - price * sure, 4e18)), end, free)
        accepted = new_span + price * sure <= limit
        if accepted and not (exact and (books.coming == 0 or _over(a, books.held, books.coming) == 0)):
            new_peak, simulated = play_in(a, home[a.group], sequence)
            new_excess = _over(a, new_peak, 0)
            if a.objective != THROUGHPUT:
                new_span = simulated
            accepted = new_span + price * new_excess <= limit
            if accepted:
                peak[:] = new_peak
        if accepted:
            span, excess = new_span, new_excess
            if fresh:
                turn[sequence] = np.arange(len(sequence))
            if excess < best_excess or (excess == best_excess and span < best_span):
                best_home[:], best_sequence[:], best_excess, best_span = home, sequence, excess, span
        elif fresh:
            sequence[:] = old
        elif i >= 0:
            set_turn(sequence, turn, i, was)
        else:
            undo(home, m, count)
            _hold(books, m.group, m.to, m.was, count)
    return best_home, best_sequence


@leaf
def _full(a: Arrays, peak: Ints, excess: int) -> int:
    """A device to take from: one that is over its cap, or any (-1)."""
    if excess == 0:
        return -1
    d = np.random.randint(len(a.cap))
    for _ in range(len(a.cap)):
        if peak[d] > a.cap[d]:
            return int(d)
        d = (d + 1) % len(a.cap)
    return -1


@leaf
def _roomy(a: Arrays, peak: Ints, source: int, excess: int) -> int:
    """A device to give to: when memory is short, mostly one with room."""
    d = np.random.randint(len(a.cap))
    if excess > 0 and np.random.randint(4) > 0:
        for _ in range(len(a.cap)):
            if peak[d] < a.cap[d]:
                break
            d = (d + 1) % len(a.cap)
    return int((d + 1) % len(a.cap) if d == source else d)
