"""The simulator's compiled loop: when each op and transfer of a placed step runs, and what memory it takes.

Every device runs its ops in a given order, each as soon as its inputs are there. Transfers run
on copy lanes beside the ops. Ops of devices that share a host with fewer cores than it has running
ops and copies are slowed down alike.
"""

from typing import NamedTuple

import numpy as np
from baechi.cost.jit import kernel, leaf, maker

from baechi.cost.problem import PARALLEL, SEQUENTIAL, TOKEN, UNLIMITED_CORES, Arrays, Ints
from baechi.sim.heap import heap_pop, heap_push
from baechi.sim.transfers import Transfers, held_by, storages_of, transfer_ticks

__all__ = ["Run", "play"]


class Run(NamedTuple):
    """One simulated step, in ticks.

    Attributes:
        done: ops that ran; fewer than all when the orders wait for each other.
        makespan: end of the last op or transfer.
        peak: (devices,) highest memory.
        op_start, op_end, x_start, x_end: times of ops and transfers.
        x_order: transfers in the order in which they started.
        memory: (changes, 3) time, device and bytes after each change; empty unless asked for.
    """

    done: int
    makespan: int
    peak: Ints
    op_start: Ints
    op_end: Ints
    x_start: Ints
    x_end: Ints
    x_order: Ints
    memory: Ints


class _State(NamedTuple):
    """All that changes while a step runs."""

    run: Run
    storage: Ints
    count: Ints
    memory: Ints
    waits: Ints
    running: Ints
    ends: Ints
    position: Ints
    clock: Ints
    active: Ints
    copies: Ints
    lane_free: Ints
    produced: Ints
    pending: Ints
    pending_at: Ints
    lane: Ints
    lane_at: Ints
    lane_end: Ints
    tally: Ints


_NOW, _STARTED, _DONE, _CHANGES, _PENDING = range(5)


@kernel
def play(
    a: Arrays, device: Ints, order: Ints, order_ptr: Ints, x: Transfers, x_rank: Ints, strict: bool, log: bool
) -> Run:
    """Simulate one step; O((ops + reads + transfers) x (devices^2 + log)) time.

    Args:
        device: (ops,) device of each op.
        order, order_ptr: ops of each device in the order in which it runs them.
        x: `transfers_of` the placement.
        x_rank: (transfers,) the smaller, the earlier.
        strict: every lane keeps the order of `x_rank`; otherwise it takes, of what is there, the
            transfer of smallest rank.
        log: keep the memory curve.
    """
    s = _begin(a, device, order_ptr, x, x_rank, strict, log)
    while True:
        _start_ops(a, device, order, order_ptr, s)
        if strict and a.contention != PARALLEL:
            _start_copies_in_order(a, device, x, s)
        elif s.tally[_PENDING] > 0:
            _start_copies(a, device, x, s)
        if not _advance(a, s):
            break
        _finish(a, device, x, x_rank, s)
    r = s.run
    done, now, changes = s.tally[_DONE], s.tally[_NOW], s.tally[_CHANGES]
    return Run(done, now, r.peak, r.op_start, r.op_end, r.x_start, r.x_end, r.x_order, r.memory[:changes])


@maker
def _begin(a: Arrays, device: Ints, order_ptr: Ints, x: Transfers, x_rank: Ints, strict: bool, log: bool) -> _State:
    ops, devices, transfers, clocks = len(device), len(a.cap), len(x.tensor), len(a.cores) + 1
    storage, count = storages_of(a, device, x)
    memory = np.zeros(devices, np.int64)
    waits = np.empty(ops, np.int64)
    for i in range(ops):
        memory[device[i]] += a.persistent[i]
        waits[i] = a.in_ptr[i + 1] - a.in_ptr[i]
    curve = np.zeros((devices + 2 * ops + 2 * transfers if log else 0, 3), np.int64)
    tally = np.zeros(5, np.int64)
    if log:
        for d in range(devices):
            curve[d, 1], curve[d, 2] = d, memory[d]
        tally[_CHANGES] = devices
    never = np.full(2 * (ops + transfers), -1, np.int64)
    run = Run(
        0,
        0,
        memory.copy(),
        never[:ops],
        never[ops : 2 * ops],
        never[2 * ops : 2 * ops + transfers],
        never[2 * ops + transfers :],
        np.empty(transfers, np.int64),
        curve,
    )
    at_once = transfers if a.contention == PARALLEL else min(transfers, devices)
    pending_at = np.zeros(devices * devices + 1, np.int64)
    for k in range(transfers):
        pending_at[device[a.t_op[x.tensor[k]]] * devices + x.destination[k] + 1] += 1
    for pair in range(devices * devices):
        pending_at[pair + 1] += pending_at[pair] + 1
    pending = np.zeros((pending_at[-1], 3), np.int64)
    lane, lane_ptr = _lanes(a, device, x, x_rank, strict)
    return _State(
        run,
        storage,
        count,
        memory,
        waits,
        np.full(devices, -1, np.int64),
        np.zeros(devices, np.int64),
        order_ptr[:devices].copy(),
        np.zeros(clocks, np.int64),
        np.zeros(clocks, np.int64),
        np.zeros((clocks, at_once + 1, 3), np.int64),
        np.ones(2 * devices, np.int64),
        np.zeros(transfers, np.int64),
        pending,
        pending_at,
        lane,
        lane_ptr[:-1].copy(),
        lane_ptr[1:].copy(),
        tally,
    )


@maker
def _lanes(a: Arrays, device: Ints, x: Transfers, x_rank: Ints, strict: bool) -> tuple[Ints, Ints]:
    """Transfers of each lane by rank. Lane ``d`` sends from device ``d``; it receives too when
    transfers are sequential, else lane ``devices + d`` does."""
    devices = len(a.cap)
    ptr = np.zeros(2 * devices + 1, np.int64)
    if not strict or a.contention == PARALLEL:
        return np.empty(0, np.int64), ptr
    for k in range(len(x.tensor)):
        ptr[device[a.t_op[x.tensor[k]]] + 1] += 1
        ptr[_receiving(a, x.destination[k]) + 1] += 1
    ptr = np.cumsum(ptr)
    at = ptr[:-1].copy()
    lane = np.empty(ptr[-1], np.int64)
    for k in np.argsort(x_rank):
        for one in (device[a.t_op[x.tensor[k]]], _receiving(a, x.destination[k])):
            lane[at[one]] = k
            at[one] += 1
    return lane, ptr


@leaf
def _receiving(a: Arrays, destination: int) -> int:
    return destination if a.contention == SEQUENTIAL else len(a.cap) + destination


@leaf
def _change(s: _State, d: int, nbytes: int) -> None:
    s.memory[d] += nbytes
    s.run.peak[d] = max(s.run.peak[d], s.memory[d])
    if len(s.run.memory) and nbytes != 0:
        row = s.tally[_CHANGES]
        s.run.memory[row, 0], s.run.memory[row, 1], s.run.memory[row, 2] = s.tally[_NOW], d, s.memory[d]
        s.tally[_CHANGES] = row + 1


@leaf
def _clock_of(a: Arrays, source: int, destination: int) -> int:
    """The clock of a job on one host whose cores are shared, else real time."""
    host = a.host[source]
    shared = host == a.host[destination] and a.cores[host] < UNLIMITED_CORES
    return int(host) if shared else len(a.cores)


@leaf
def _start_ops(a: Arrays, device: Ints, order: Ints, order_ptr: Ints, s: _State) -> None:
    for d in range(len(a.cap)):
        if s.running[d] >= 0 or s.position[d] == order_ptr[d + 1]:
            continue
        i = order[s.position[d]]
        if s.waits[i] > 0:
            continue
        s.position[d] += 1
        s.running[d] = i
        s.run.op_start[i] = s.tally[_NOW]
        c = _clock_of(a, d, d)
        s.ends[d] = s.clock[c] + a.ticks[i, d]
        s.active[c] += 1
        nbytes = a.temp[i]
        for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
            nbytes += a.t_size[t]
        _change(s, d, nbytes)


@leaf
def _start_copies(a: Arrays, device: Ints, x: Transfers, s: _State) -> None:
    """Start, of the produced transfers whose lanes are free, the one of smallest rank, and again."""
    devices = len(a.cap)
    while s.tally[_PENDING] > 0:
        best = -1
        rank = np.int64(0)
        for source in range(devices):
            if s.lane_free[source] == 0:
                continue
            for d in range(devices):
                at = s.pending_at[source * devices + d]
                if s.pending[at, 0] == 0 or s.lane_free[_receiving(a, d)] == 0:
                    continue
                if best < 0 or s.pending[at + 1, 0] < rank:
                    best, rank = source * devices + d, s.pending[at + 1, 0]
        if best < 0:
            return
        k = heap_pop(s.pending[s.pending_at[best] : s.pending_at[best + 1]])
        s.tally[_PENDING] -= 1
        _start_copy(a, device, x, k, s)


@leaf
def _start_copies_in_order(a: Arrays, device: Ints, x: Transfers, s: _State) -> None:
    """Start every transfer that is produced and the next one of both its lanes."""
    for source in range(len(a.cap)):
        if s.lane_free[source] == 0 or s.lane_at[source] == s.lane_end[source]:
            continue
        k = s.lane[s.lane_at[source]]
        sending, receiving = device[a.t_op[x.tensor[k]]], _receiving(a, x.destination[k])
        if s.produced[k] == 0 or s.lane_free[sending] == 0 or s.lane_free[receiving] == 0:
            continue
        if s.lane[s.lane_at[sending]] != k or s.lane[s.lane_at[receiving]] != k:
            continue
        s.lane_at[sending] += 1
        s.lane_at[receiving] += 1
        _start_copy(a, device, x, k, s)


@leaf
def _start_copy(a: Arrays, device: Ints, x: Transfers, k: int, s: _State) -> None:
    t, d = x.tensor[k], x.destination[k]
    source = device[a.t_op[t]]
    if a.contention != PARALLEL:
        s.lane_free[source] = s.lane_free[_receiving(a, d)] = 0
    s.run.x_start[k] = s.tally[_NOW]
    s.run.x_order[s.tally[_STARTED]] = k
    s.tally[_STARTED] += 1
    c = _clock_of(a, source, d)
    s.active[c] += 1
    heap_push(s.copies[c], s.clock[c] + transfer_ticks(a, t, source, d), k, k)
    _change(s, d, a.t_bytes[t])


@leaf
def _next_end(a: Arrays, s: _State, c: int) -> int:
    """The reading of clock `c` when the next of its jobs ends."""
    end = np.int64(np.iinfo(np.int64).max)
    for d in range(len(a.cap)):
        if s.running[d] >= 0 and _clock_of(a, d, d) == c:
            end = min(end, s.ends[d])
    if s.copies[c, 0, 0] > 0:
        end = min(end, s.copies[c, 1, 0])
    return int(end)


@leaf
def _advance(a: Arrays, s: _State) -> bool:
    """Move to the next end of a job; false when nothing runs."""
    step, first, reached = np.int64(-1), -1, np.int64(0)
    for c in range(len(s.clock)):
        if s.active[c] == 0:
            continue
        end = _next_end(a, s, c)
        left = end - s.clock[c]
        if c < len(a.cores) and s.active[c] > a.cores[c]:
            left = np.int64(np.ceil(left * (s.active[c] / a.cores[c])))
        if first < 0 or left < step:
            step, first, reached = left, c, end
    if first < 0:
        return False
    for c in range(len(s.clock)):
        if c == first:
            s.clock[c] = reached
        elif c < len(a.cores) and s.active[c] > a.cores[c]:
            s.clock[c] = min(_next_end(a, s, c), s.clock[c] + np.int64(step * (a.cores[c] / s.active[c])))
        else:
            s.clock[c] += step
    s.tally[_NOW] += step
    return True


@leaf
def _finish(a: Arrays, device: Ints, x: Transfers, x_rank: Ints, s: _State) -> None:
    for d in range(len(a.cap)):
        if s.running[d] >= 0 and s.ends[d] <= s.clock[_clock_of(a, d, d)]:
            _finish_op(a, device, x, x_rank, s.running[d], d, s)
    for c in range(len(s.clock)):
        while s.copies[c, 0, 0] > 0 and s.copies[c, 1, 0] <= s.clock[c]:
            _finish_copy(a, device, x, heap_pop(s.copies[c]), c, s)


@leaf
def _release(a: Arrays, x: Transfers, storage: int, s: _State) -> int:
    """Let go of a storage; returns the bytes that this frees."""
    s.count[storage] -= 1
    if s.count[storage] > 0:
        return 0
    tensors = len(a.t_op)
    return int(a.t_size[storage] if storage < tensors else a.t_bytes[x.tensor[storage - tensors]])


@leaf
def _finish_op(a: Arrays, device: Ints, x: Transfers, x_rank: Ints, i: int, d: int, s: _State) -> None:
    s.run.op_end[i] = s.tally[_NOW]
    s.running[d] = -1
    s.active[_clock_of(a, d, d)] -= 1
    s.tally[_DONE] += 1
    freed = a.temp[i]
    for k in range(a.in_ptr[i], a.in_ptr[i + 1]):
        freed += _release(a, x, held_by(a, device, x, s.storage, i, a.in_t[k]), s)
    for t in range(a.out_ptr[i], a.out_ptr[i + 1]):
        token = a.t_ticks[t] == TOKEN
        for k in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            if token or device[a.rd_op[k]] == d:
                s.waits[a.rd_op[k]] -= 1
        for k in range(x.ptr[t], x.ptr[t + 1]):
            s.produced[k] = 1
            pair = d * len(a.cap) + x.destination[k]
            heap_push(s.pending[s.pending_at[pair] : s.pending_at[pair + 1]], x_rank[k], k, k)
            s.tally[_PENDING] += 1
        freed += _release(a, x, s.storage[t], s)
    _change(s, d, -freed)


@leaf
def _finish_copy(a: Arrays, device: Ints, x: Transfers, k: int, c: int, s: _State) -> None:
    t, d = x.tensor[k], x.destination[k]
    source = device[a.t_op[t]]
    s.run.x_end[k] = s.tally[_NOW]
    s.active[c] -= 1
    s.lane_free[source] = s.lane_free[_receiving(a, d)] = 1
    for reader in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
        if device[a.rd_op[reader]] == d:
            s.waits[a.rd_op[reader]] -= 1
    _change(s, source, -_release(a, x, s.storage[t], s))
