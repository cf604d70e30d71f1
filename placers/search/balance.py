"""Local search for the highest throughput: simulated annealing on the loads of the devices."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, leaf, maker
from baechi.cost.problem import TOKEN, Arrays, Ints
from baechi.placers.search.moves import new_moves, propose
from baechi.sim.evaluate import play_in
from baechi.sim.load import loads
from baechi.sim.transfers import transfer_ticks

__all__ = ["balance"]

_POWER = 8  # of the norm of the loads that stands for their maximum


class _Books(NamedTuple):
    """Loads and memory, kept up to date move by move.

    Attributes:
        device: (ops,) device of each op.
        readers: (tensors, devices) readers of each tensor on each device.
        load, held: (devices,) ticks, and bytes that persist.
        persistent: (groups,) bytes.
        touched: (tensors,) the move that last took a tensor out of the loads; the count of moves last.
    """

    device: Ints
    readers: Ints
    load: Ints
    held: Ints
    persistent: Ints
    touched: Ints


@maker
def _books(a: Arrays, home: Ints) -> _Books:
    tensors, devices = len(a.t_op), len(a.cap)
    device = home[a.group]
    readers = np.zeros((tensors, devices), np.int64)
    held = np.zeros(devices, np.int64)
    persistent = np.zeros(len(home), np.int64)
    for i in range(len(device)):
        held[device[i]] += a.persistent[i]
        persistent[a.group[i]] += a.persistent[i]
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            readers[a.in_t[k], device[i]] += 1
    return _Books(device, readers, loads(a, device), held, persistent, np.zeros(tensors + 1, np.int64))


@kernel
def balance(a: Arrays, home: Ints, sequence: Ints, tries: int, seed: int, warmth: float) -> Ints:
    """Home of each group in the best placement seen; each move costs the reads of the groups that it moves.

    The cost is a norm of the loads, which unlike their maximum tells devices below it apart.
    Moves that put a device over its cap are refused.
    """
    np.random.seed(seed)
    m, books = new_moves(a), _books(a, home)
    coming = a.t_size.sum() + a.t_bytes.sum() + a.t_packed.sum() * len(a.cap) + a.temp.max()
    cost = _norm(books.load)
    best, best_home = books.load.max(), home.copy()
    for k in range(tries):
        left = 1.0 - k / tries
        limit = cost - warmth * left * left * best * np.log(max(1e-300, np.random.random()))
        count = propose(a, home, sequence, -1, -1, m)
        for c in range(count):
            m.was[c] = home[m.group[c]]
            _move(a, home, books, m.group[c], m.to[c])
        new = _norm(books.load) if count > 0 else cost
        if new <= limit and _fits(a, books, coming, home, sequence):
            cost = new
            if books.load.max() < best:
                best = books.load.max()
                best_home[:] = home
        else:
            for c in range(count - 1, -1, -1):
                _move(a, home, books, m.group[c], m.was[c])
    return best_home


@maker
def _fits(a: Arrays, books: _Books, coming: int, home: Ints, sequence: Ints) -> bool:
    sure, maybe = True, False
    for d in range(len(a.cap)):
        sure = sure and books.held[d] <= a.cap[d]
        maybe = maybe or books.held[d] + coming > a.cap[d]
    if not sure or not maybe:
        return sure
    peak, _ = play_in(a, books.device, sequence)
    for d in range(len(a.cap)):
        sure = sure and peak[d] <= a.cap[d]
    return sure


@leaf
def _norm(load: Ints) -> float:
    top = load[0]
    for d in range(len(load)):
        top = max(top, load[d])
    if top == 0:
        return 0.0
    total = 0.0
    for d in range(len(load)):
        total += (load[d] / top) ** _POWER
    return float(top * total ** (1.0 / _POWER))


@leaf
def _move(a: Arrays, home: Ints, books: _Books, g: int, to: int) -> None:
    source = home[g]
    books.touched[-1] += 1
    mark = books.touched[-1]
    for s in range(a.group_ptr[g], a.group_ptr[g + 1]):
        i = a.group_op[s]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            if books.touched[t] != mark:
                books.touched[t] = mark
                _charge(a, books, t, -1)
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            if books.touched[a.in_t[k]] != mark:
                books.touched[a.in_t[k]] = mark
                _charge(a, books, a.in_t[k], -1)
    for s in range(a.group_ptr[g], a.group_ptr[g + 1]):
        i = a.group_op[s]
        books.device[i] = to
        books.load[source] -= a.ticks[i, source]
        books.load[to] += a.ticks[i, to]
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            books.readers[a.in_t[k], source] -= 1
            books.readers[a.in_t[k], to] += 1
    for s in range(a.group_ptr[g], a.group_ptr[g + 1]):
        i = a.group_op[s]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            if books.touched[t] == mark:
                books.touched[t] = 0
                _charge(a, books, t, 1)
        for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
            if books.touched[a.in_t[k]] == mark:
                books.touched[a.in_t[k]] = 0
                _charge(a, books, a.in_t[k], 1)
    home[g] = to
    books.held[source] -= books.persistent[g]
    books.held[to] += books.persistent[g]


@leaf
def _charge(a: Arrays, books: _Books, t: int, sign: int) -> None:
    """Enter the transfers of a tensor into the loads, or take them out."""
    if a.t_ticks[t] == TOKEN:
        return
    source, longest = books.device[a.t_op[t]], 0
    for d in range(len(books.load)):
        if d != source and books.readers[t, d] > 0:
            ticks = transfer_ticks(a, t, source, d)
            books.load[d] += sign * a.pays[d] * ticks
            longest = max(longest, ticks)
    books.load[source] += sign * a.pays[source] * longest
