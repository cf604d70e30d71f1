"""The simulator's compiled loop: when each op and transfer of a placed step runs, and what memory it takes.

Every device runs its ops in a given order, each as soon as its inputs are there. Transfers run
on copy lanes beside the ops. Ops of devices that share a host with fewer cores than it has running
ops and copies are slowed down alike.
"""

import numpy as np

from baechi.cost.jit import kernel, leaf
from baechi.cost.problem import PARALLEL, SEQUENTIAL, TOKEN, Arrays, Ints
from baechi.sim.heap import heap_pop, heap_push
from baechi.sim.state import (
    CHANGES,
    DONE,
    NOW,
    PENDING,
    STARTED,
    Run,
    State,
    begin,
    clock_of,
    on_lanes,
    receiving_lane,
)
from baechi.sim.transfers import Transfers, held_by, transfer_ticks

__all__ = ["play"]

_NEVER = 2**63 - 1


@kernel
def play(
    a: Arrays, device: Ints, order: Ints, order_ptr: Ints, x: Transfers, x_rank: Ints, strict: bool, log: bool
) -> Run:
    """Simulate one step; O((ops + reads + transfers) x (devices + log)) time.

    Args:
        device: (ops,) device of each op.
        order, order_ptr: ops of each device in the order in which it runs them.
        x: `transfers_of` the placement.
        x_rank: (transfers,) the smaller, the earlier.
        strict: every lane keeps the order of `x_rank`; otherwise it takes, of what is there, the
            transfer of smallest rank.
        log: keep the memory curve.
    """
    s = begin(a, device, order_ptr, x, x_rank, strict, log)
    lanes = len(a.cap) * (1 if a.pays.min() == 1 else 2)  # what a host sends is on the receiver's lane only
    while True:
        _start_ops(a, order, order_ptr, x, s)
        if len(s.lane) > 0:
            _start_copies_in_order(a, device, x, lanes, s)
        if s.tally[PENDING] > 0:
            _start_copies(a, device, x, s)
        if not _advance(a, s):
            break
        _finish(a, device, x, x_rank, s)
    r = s.run
    done, now, changes = s.tally[DONE], s.tally[NOW], s.tally[CHANGES]
    return Run(done, now, r.peak, r.op_start, r.op_end, r.x_start, r.x_end, r.x_order, r.memory[:changes])


@leaf
def _change(s: State, d: int, nbytes: int) -> None:
    s.memory[d] += nbytes
    s.run.peak[d] = max(s.run.peak[d], s.memory[d])
    if len(s.run.memory) and nbytes != 0:
        row = s.tally[CHANGES]
        s.run.memory[row, 0], s.run.memory[row, 1], s.run.memory[row, 2] = s.tally[NOW], d, s.memory[d]
        s.tally[CHANGES] = row + 1


@leaf
def _start_ops(a: Arrays, order: Ints, order_ptr: Ints, x: Transfers, s: State) -> None:
    for d in range(len(a.cap)):
        if s.woken[d] == 0:
            continue
        s.woken[d] = 0
        if s.running[d] >= 0 or s.position[d] == order_ptr[d + 1]:
            continue
        i = order[s.position[d]]
        if s.waits[i] > 0:
            continue
        s.position[d] += 1
        s.running[d] = i
        s.run.op_start[i] = s.tally[NOW]
        c = s.clock_at[d]
        s.ends[d] = s.clock[c] + a.ticks[i, d]
        s.active[c] += a.threads[d]
        nbytes = a.temp[i]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            nbytes += a.t_size[t] + a.t_packed[t] * (x.ptr[t + 1] - x.ptr[t])
        _change(s, d, nbytes)


@leaf
def _start_copies(a: Arrays, device: Ints, x: Transfers, s: State) -> None:
    """Start, of the produced transfers whose lanes are free, the one of smallest rank, and again.

    After each event none is left that could start, so only lanes that the next event touches count.
    """
    devices = len(a.cap)
    while s.tally[PENDING] > 0:
        best, rank = -1, 0
        for one in range(devices):
            if s.touched[one] == 1 and s.queued[one] > 0 and s.lane_free[one] == 1:
                for d in range(devices):
                    best, rank = _sooner(a, one, d, best, rank, s)
            there = devices + one
            if s.touched[there] == 1 and s.queued[there] > 0 and s.lane_free[receiving_lane(a, one)] == 1:
                for source in range(devices):
                    best, rank = _sooner(a, source, one, best, rank, s)
        if best < 0:
            break
        k = heap_pop(s.pending[s.pending_at[best] : s.pending_at[best + 1]])
        _queue(s, best // devices, best % devices, -1)
        _start_copy(a, device, x, k, s)
    s.touched[:] = 0


@leaf
def _queue(s: State, source: int, destination: int, more: int) -> None:
    """Count transfers that came to wait for lanes, or that left."""
    s.tally[PENDING] += more
    s.queued[source] += more
    s.queued[len(s.running) + destination] += more


@leaf
def _sooner(a: Arrays, source: int, d: int, best: int, rank: int, s: State) -> tuple[int, int]:
    """The better of the best pair of devices so far and another one, and the rank of its first transfer."""
    pair = source * len(a.cap) + d
    at = s.pending_at[pair]
    if s.pending[at, 0] == 0 or s.lane_free[source] == 0 or s.lane_free[receiving_lane(a, d)] == 0:
        return best, rank
    found = s.pending[at + 1, 0]
    if best < 0 or found < rank or (found == rank and pair < best):
        return pair, found
    return best, rank


@leaf
def _start_copies_in_order(a: Arrays, device: Ints, x: Transfers, lanes: int, s: State) -> None:
    """Start every transfer that is produced and the next one of its lanes, of which the first `lanes` name all."""
    for one in range(lanes):
        if s.stirred[one] == 0:
            continue
        s.stirred[one] = 0
        if s.lane_free[one] == 0 or s.lane_at[one] == s.lane_end[one]:
            continue
        k = s.lane[s.lane_at[one]]
        source, d = device[a.t_op[x.tensor[k]]], x.destination[k]
        sending, receiving = source, receiving_lane(a, d)
        if s.produced[k] == 0 or not _is_next(a, source, sending, k, s) or not _is_next(a, d, receiving, k, s):
            continue
        s.lane_at[sending] += a.pays[source]
        s.lane_at[receiving] += a.pays[d]
        _start_copy(a, device, x, k, s)


@leaf
def _stir(a: Arrays, device: Ints, x: Transfers, lane: int, s: State) -> None:
    """Say that the next transfer of a lane may start now."""
    if s.lane_at[lane] < s.lane_end[lane]:
        k = s.lane[s.lane_at[lane]]
        s.stirred[device[a.t_op[x.tensor[k]]]] = s.stirred[receiving_lane(a, x.destination[k])] = 1


@leaf
def _is_next(a: Arrays, d: int, lane: int, k: int, s: State) -> bool:
    """Whether a device's lane is free for transfer `k`, and it is the next; one without lanes is always."""
    return bool(a.pays[d] == 0 or (s.lane_free[lane] == 1 and s.lane[s.lane_at[lane]] == k))


@leaf
def _start_copy(a: Arrays, device: Ints, x: Transfers, k: int, s: State) -> None:
    t, d = x.tensor[k], x.destination[k]
    source = device[a.t_op[t]]
    if a.contention != PARALLEL:
        s.lane_free[source], s.lane_free[receiving_lane(a, d)] = 1 - a.pays[source], 1 - a.pays[d]
    s.run.x_start[k] = s.tally[NOW]
    s.run.x_order[s.tally[STARTED]] = k
    s.tally[STARTED] += 1
    c = clock_of(a, source, d)
    s.active[c] += 1
    heap_push(s.copies[c], s.clock[c] + transfer_ticks(a, t, source, d), k)
    _change(s, d, a.t_bytes[t])


@leaf
def _next_end(a: Arrays, s: State, c: int) -> int:
    """The reading of clock `c` when the next of its jobs ends."""
    end = _NEVER
    for d in range(len(a.cap)):
        if s.running[d] >= 0 and s.clock_at[d] == c:
            end = min(end, s.ends[d])
    if s.copies[c, 0, 0] > 0:
        end = min(end, s.copies[c, 1, 0])
    return int(end)


@leaf
def _advance(a: Arrays, s: State) -> bool:
    """Move to the next end of a job; false when nothing runs."""
    step, first, reached = -1, -1, 0
    for c in range(len(s.clock)):
        if s.active[c] == 0:
            continue
        end = _next_end(a, s, c)
        left = end - s.clock[c]
        if c < len(a.cores) and s.active[c] > a.cores[c]:
            left = int(np.ceil(left * (s.active[c] / a.cores[c])))
        if first < 0 or left < step:
            step, first, reached = left, c, end
    if first < 0:
        return False
    for c in range(len(s.clock)):
        if c == first:
            s.clock[c] = reached
        elif c < len(a.cores) and s.active[c] > a.cores[c]:
            s.clock[c] = min(_next_end(a, s, c), s.clock[c] + int(step * (a.cores[c] / s.active[c])))
        else:
            s.clock[c] += step
    s.tally[NOW] += step
    return True


@leaf
def _finish(a: Arrays, device: Ints, x: Transfers, x_rank: Ints, s: State) -> None:
    for d in range(len(a.cap)):
        if s.running[d] >= 0 and s.ends[d] <= s.clock[s.clock_at[d]]:
            _finish_op(a, device, x, x_rank, s.running[d], d, s)
    for c in range(len(s.clock)):
        while s.copies[c, 0, 0] > 0 and s.copies[c, 1, 0] <= s.clock[c]:
            _finish_copy(a, device, x, heap_pop(s.copies[c]), c, s)


@leaf
def _release(a: Arrays, x: Transfers, storage: int, s: State) -> int:
    """Let go of a storage; returns the bytes that this frees."""
    s.holders[storage] -= 1
    if s.holders[storage] > 0:
        return 0
    tensors = len(a.t_op)
    return int(a.t_size[storage] if storage < tensors else a.t_bytes[x.tensor[storage - tensors]])


@leaf
def _finish_op(a: Arrays, device: Ints, x: Transfers, x_rank: Ints, i: int, d: int, s: State) -> None:
    s.run.op_end[i] = s.tally[NOW]
    s.running[d] = -1
    s.woken[d] = 1
    s.active[s.clock_at[d]] -= a.threads[d]
    s.tally[DONE] += 1
    freed = a.temp[i]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        freed += _release(a, x, held_by(a, device, x, s.storage, i, a.in_t[k]), s)
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        token = a.t_ticks[t] == TOKEN
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[k]
            if token or device[reader] == d:
                s.waits[reader] -= 1
                if s.waits[reader] == 0:
                    s.woken[device[reader]] = 1
        for k in range(x.ptr[t], x.ptr[t + 1]):
            s.produced[k] = 1
            if len(s.lane) > 0 and on_lanes(a, d, x.destination[k]):
                s.stirred[d] = s.stirred[receiving_lane(a, x.destination[k])] = 1
                continue
            pair = d * len(a.cap) + x.destination[k]
            heap_push(s.pending[s.pending_at[pair] : s.pending_at[pair + 1]], x_rank[k], k)
            _queue(s, d, x.destination[k], 1)
            s.touched[d] = 1
        freed += _release(a, x, s.storage[t], s)
    _change(s, d, -freed)


@leaf
def _finish_copy(a: Arrays, device: Ints, x: Transfers, k: int, c: int, s: State) -> None:
    t, d = x.tensor[k], x.destination[k]
    source = device[a.t_op[t]]
    s.run.x_end[k] = s.tally[NOW]
    s.active[c] -= 1
    s.lane_free[source] = s.lane_free[receiving_lane(a, d)] = 1
    if len(s.lane) > 0:
        _stir(a, device, x, source, s)
        _stir(a, device, x, receiving_lane(a, d), s)
    s.touched[source] = s.touched[len(a.cap) + d] = 1
    if a.contention == SEQUENTIAL:
        s.touched[d] = s.touched[len(a.cap) + source] = 1
    for reader in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
        if device[a.rd_op[reader]] == d:
            s.waits[a.rd_op[reader]] -= 1
            if s.waits[a.rd_op[reader]] == 0:
                s.woken[d] = 1
    _change(s, source, -(a.t_packed[t] if a.t_packed[t] > 0 else _release(a, x, s.storage[t], s)))
