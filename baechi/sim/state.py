"""What changes while the simulator plays a step, and how it begins."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import leaf, maker
from baechi.cost.problem import PARALLEL, SEQUENTIAL, UNLIMITED_CORES, Arrays, Ints
from baechi.cost.tensors import buckets
from baechi.sim.transfers import Transfers, storages_of

__all__ = [
    "CHANGES",
    "DONE",
    "NOW",
    "PENDING",
    "STARTED",
    "Run",
    "State",
    "begin",
    "clock_of",
    "on_lanes",
    "receiving_lane",
]

NOW, STARTED, DONE, CHANGES, PENDING = range(5)
"""Where `State.tally` counts what."""


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


class State(NamedTuple):
    """All that changes while a step runs.

    `lane` is empty, and `pending` has room, where a lane takes of what is there the transfer of smallest rank.
    What goes between two devices that work in host memory needs no lane, and is always `pending`.
    `woken` are the devices whose next op, and `stirred` the lanes whose next transfer, may start since last looked at.
    `touched` are the devices that send, and behind them those that receive, on whose lanes something
    happened since copies were last started; `queued` of them wait to send, or to be received. `clock_at` is the
    clock that each device's ops go by.
    """

    run: Run
    storage: Ints
    holders: Ints
    memory: Ints
    waits: Ints
    running: Ints
    woken: Ints
    ends: Ints
    position: Ints
    clock: Ints
    clock_at: Ints
    active: Ints
    copies: Ints
    lane_free: Ints
    touched: Ints
    queued: Ints
    produced: Ints
    pending: Ints
    pending_at: Ints
    lane: Ints
    lane_at: Ints
    lane_end: Ints
    stirred: Ints
    tally: Ints


@maker
def begin(a: Arrays, device: Ints, order_ptr: Ints, x: Transfers, x_rank: Ints, strict: bool, log: bool) -> State:
    """Before the first op: what persists is there, nothing runs."""
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
        tally[CHANGES] = devices
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
    at_once = transfers if a.contention == PARALLEL or a.pays.min() == 0 else min(transfers, devices)
    clock_at = np.empty(devices, np.int64)
    for d in range(devices):
        clock_at[d] = clock_of(a, d, d)
    lane, lane_ptr = _lanes(a, device, x, x_rank, strict)
    pending_at = np.zeros(devices * devices + 1, np.int64)
    for k in range(transfers):
        source = device[a.t_op[x.tensor[k]]]
        if len(lane) == 0 or not on_lanes(a, source, x.destination[k]):
            pending_at[source * devices + x.destination[k] + 1] += 1
    for pair in range(devices * devices):
        pending_at[pair + 1] += pending_at[pair] + 1
    pending = np.zeros((pending_at[-1], 2), np.int64)
    return State(
        run,
        storage,
        count,
        memory,
        waits,
        np.full(devices, -1, np.int64),
        np.ones(devices, np.int64),
        np.zeros(devices, np.int64),
        order_ptr[:devices].copy(),
        np.zeros(clocks, np.int64),
        clock_at,
        np.zeros(clocks, np.int64),
        np.zeros((clocks, at_once + 1, 2), np.int64),
        np.ones(2 * devices, np.int64),
        np.zeros(2 * devices, np.int64),
        np.zeros(2 * devices, np.int64),
        np.zeros(transfers, np.int64),
        pending,
        pending_at,
        lane,
        lane_ptr[:-1].copy(),
        lane_ptr[1:].copy(),
        np.zeros(2 * devices, np.int64),
        tally,
    )


@maker
def _lanes(a: Arrays, device: Ints, x: Transfers, x_rank: Ints, strict: bool) -> tuple[Ints, Ints]:
    """Transfers of each lane by rank. Lane ``d`` sends from device ``d``; it receives too when
    transfers are sequential, else lane ``devices + d`` does. A device that works in host memory has none."""
    devices = len(a.cap)
    ptr = np.zeros(2 * devices + 1, np.int64)
    if not strict or a.contention == PARALLEL:
        return np.empty(0, np.int64), ptr
    for k in range(len(x.tensor)):
        source, d = device[a.t_op[x.tensor[k]]], x.destination[k]
        ptr[source + 1] += a.pays[source]
        ptr[receiving_lane(a, d) + 1] += a.pays[d]
    ptr = np.cumsum(ptr)
    at = ptr[:-1].copy()
    lane = np.empty(ptr[-1], np.int64)
    _, by_rank = buckets(x_rank, x_rank.max() + 1 if len(x_rank) > 0 else 0)
    for k in by_rank:
        source, d = device[a.t_op[x.tensor[k]]], x.destination[k]
        for one, paid in ((source, a.pays[source]), (receiving_lane(a, d), a.pays[d])):
            if paid:
                lane[at[one]] = k
                at[one] += 1
    return lane, ptr


@leaf
def receiving_lane(a: Arrays, destination: int) -> int:
    """The lane on which a device receives."""
    return destination if a.contention == SEQUENTIAL else len(a.cap) + destination


@leaf
def on_lanes(a: Arrays, source: int, destination: int) -> bool:
    """Whether a transfer takes a copy lane: of two devices that work in host memory, none has one."""
    return bool(a.pays[source] + a.pays[destination] > 0)


@leaf
def clock_of(a: Arrays, source: int, destination: int) -> int:
    """The clock of a job on one host whose cores are shared, else real time."""
    host = a.host[source]
    shared = host == a.host[destination] and a.cores[host] < UNLIMITED_CORES
    return int(host) if shared else len(a.cores)
