"""A schedule, and what the simulator says of it: the one judge of placers, verifier, reports and tests."""

from typing import NamedTuple

import numpy as np

from baechi.cost.jit import kernel, maker
from baechi.cost.problem import LATENCY, Arrays, Ints, Problem
from baechi.errors import BaechiError
from baechi.ir.plan import Plan, TransferKey
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.sim.engine import play
from baechi.sim.load import loads
from baechi.sim.state import Run
from baechi.sim.transfers import Transfers, copy_of, transfers_of
from baechi.units import to_seconds

__all__ = [
    "Judged",
    "Schedule",
    "evaluate",
    "judge",
    "orders",
    "plan_schedule",
    "play_in",
    "score",
    "simulate",
    "transfer_keys",
]


class Schedule(NamedTuple):
    """What a placer decides.

    Attributes:
        device: (ops,) device of each op.
        sequence: (ops,) all ops in one topological order; every device runs its own in this order.
        sent: (transfers, 2) tensor and destination in the order that every lane keeps; None leaves
            it to the simulator, which sends first what is read first.
    """

    device: Ints
    sequence: Ints
    sent: Ints | None = None


@kernel
def orders(device: Ints, sequence: Ints, devices: int) -> tuple[Ints, Ints]:
    """Ops of each device in the order of `sequence`, as (ops, pointers)."""
    ptr = np.zeros(devices + 1, np.int64)
    for d in device:
        ptr[d + 1] += 1
    ptr = np.cumsum(ptr)
    at = ptr[:-1].copy()
    order = np.empty(len(device), np.int64)
    for i in sequence:
        order[at[device[i]]] = i
        at[device[i]] += 1
    return order, ptr


@maker
def _by_first_reader(a: Arrays, device: Ints, sequence: Ints, x: Transfers) -> Ints:
    """Rank of each transfer: when its first reader at the destination comes."""
    position = np.empty(len(sequence), np.int64)
    for k in range(len(sequence)):
        position[sequence[k]] = k
    rank = np.full(len(x.tensor), len(sequence))
    for k in range(len(x.tensor)):
        t = x.tensor[k]
        for r in range(a.rd_ptr[t], a.rd_ptr[t + 1]):
            reader = a.rd_op[r]
            if device[reader] == x.destination[k]:
                rank[k] = min(rank[k], position[reader])
    return rank


@kernel
def _evaluate(a: Arrays, device: Ints, sequence: Ints, sent: Ints) -> tuple[Run, Transfers]:
    order, ptr = orders(device, sequence, len(a.cap))
    x = transfers_of(a, device)
    strict = len(sent) > 0
    rank = _in_order(x, sent) if strict else _by_first_reader(a, device, sequence, x)
    return play(a, device, order, ptr, x, rank, strict, False), x


@maker
def _in_order(x: Transfers, sent: Ints) -> Ints:
    rank = np.full(len(x.tensor), len(sent))
    for k in range(len(sent)):
        rank[copy_of(x, sent[k, 0], sent[k, 1])] = k
    return rank


@kernel
def play_in(a: Arrays, device: Ints, sequence: Ints) -> tuple[Ints, int]:
    """Peaks and objective of a schedule whose transfers are left to the simulator; for compiled searches."""
    run, _ = _evaluate(a, device, sequence, np.empty((0, 2), np.int64))
    if a.objective == LATENCY:
        return run.peak, run.makespan
    return run.peak, int(loads(a, device).max())


_LEFT_TO_THE_SIMULATOR = np.empty((0, 2), np.int64)


def evaluate(a: Arrays, schedule: Schedule) -> tuple[Run, Transfers]:
    """Simulate a schedule: times, peaks, and the transfers that it needs."""
    sent = _LEFT_TO_THE_SIMULATOR if schedule.sent is None else schedule.sent
    return _evaluate(a, schedule.device, schedule.sequence, sent)


class Judged(NamedTuple):
    """A schedule's score, and the simulated step that it comes from."""

    score: tuple[int, int]
    run: Run
    transfers: Transfers


def judge(a: Arrays, schedule: Schedule) -> Judged:
    """Simulate a schedule and score it: bytes over the caps, summed, then the objective in ticks.

    A schedule whose transfers wait for each other is worse than any that runs.
    """
    run, x = evaluate(a, schedule)
    if run.done < len(a.rank):
        return Judged((1 << 62, 0), run, x)
    ticks = run.makespan if a.objective == LATENCY else int(loads(a, schedule.device).max())
    return Judged((int(np.maximum(run.peak - a.cap, 0).sum()), ticks), run, x)


def score(a: Arrays, schedule: Schedule) -> tuple[int, int]:
    """What makes one schedule better than another; see `judge`."""
    return judge(a, schedule).score


def transfer_keys(problem: Problem, device: Ints, run: Run, x: Transfers) -> tuple[TransferKey, ...]:
    """The transfers of a run by name, in the order in which they started."""
    names, tensors = np.array([d.name for d in problem.cluster.devices], object), np.array(problem.tensor_names, object)
    a, k = problem.arrays, run.x_order[: len(x.tensor)]
    tensor = x.tensor[k]
    columns = tensors[tensor], names[device[a.t_op[tensor]]], names[x.destination[k]]
    return tuple(zip(*(column.tolist() for column in columns), strict=True))


def simulate(problem: Problem, plan: Plan) -> Timeline:
    """Play a plan: the timeline that a step of it should take.

    Raises:
        BaechiError: B402 when the plan is not for this graph, B403 when its orders or transfers
            cannot be carried out.
    """
    device, order = _placed(problem, plan)
    ptr = np.cumsum([0, *(len(plan.order.get(d.name, ())) for d in problem.cluster.devices)])
    x = transfers_of(problem.arrays, device)
    run = play(problem.arrays, device, order, ptr.astype(np.int64), x, _ranks(problem, plan, x, device), True, True)
    if run.done < len(order):
        raise BaechiError(
            "B403", f"the plan stops after {run.done} of {len(order)} ops: its orders wait for each other"
        )
    return _timeline(problem, device, order, run, x)


def plan_schedule(problem: Problem, plan: Plan) -> Schedule:
    """A plan as a schedule, its transfers in the plan's order; errors as `simulate`."""
    device, order = _placed(problem, plan)
    x = transfers_of(problem.arrays, device)
    by_rank = np.argsort(_ranks(problem, plan, x, device))
    return Schedule(device, order, np.column_stack([x.tensor, x.destination])[by_rank])


def _placed(problem: Problem, plan: Plan) -> tuple[Ints, Ints]:
    """Device of each op, and the ops of one device after the other in its order."""
    index = problem.graph.index
    number = {d.name: k for k, d in enumerate(problem.cluster.devices)}
    if plan.device.keys() != index.keys():
        raise BaechiError(
            "B402", "the plan is for another graph", help="place the graph again, or name the right target"
        )
    device = np.array([number[plan.device[op.name]] for op in problem.graph.ops], np.int64)
    order = [index[name] for d in problem.cluster.devices for name in plan.order.get(d.name, ())]
    return device, np.array(order, np.int64)


def _ranks(problem: Problem, plan: Plan, x: Transfers, device: Ints) -> Ints:
    position = {key: k for k, key in enumerate(plan.transfers)}
    names = [d.name for d in problem.cluster.devices]
    rank = np.empty(len(x.tensor), np.int64)
    for k, (t, d) in enumerate(zip(x.tensor.tolist(), x.destination.tolist(), strict=True)):
        key = (problem.tensor_names[t], names[device[problem.arrays.t_op[t]]], names[d])
        if key not in position:
            raise BaechiError("B403", f"the plan does not send '{key[0]}' from {key[1]} to {key[2]}")
        rank[k] = position[key]
    if len(position) != len(rank):
        raise BaechiError("B403", f"the plan has {len(position)} transfers where {len(rank)} are needed")
    return rank


def _timeline(problem: Problem, device: Ints, order: Ints, run: Run, x: Transfers) -> Timeline:
    names = [d.name for d in problem.cluster.devices]
    a = problem.arrays
    start, end = run.op_start.tolist(), run.op_end.tolist()
    spans = [
        OpSpan(op.name, names[device[i]], to_seconds(start[i]), to_seconds(end[i]))
        for i, op in enumerate(problem.graph.ops)
    ]
    position = np.argsort(order)  # ops that take no time start together, but one after the other
    by_start = np.lexsort((position, run.op_start))
    transfers = []
    for k in run.x_order.tolist():
        t, d = int(x.tensor[k]), names[x.destination[k]]
        times = to_seconds(run.x_start[k]), to_seconds(run.x_end[k])
        transfers.append(TransferSpan(problem.tensor_names[t], names[device[a.t_op[t]]], d, *times, int(a.t_bytes[t])))
    curves: list[list[tuple[float, int]]] = [[] for _ in names]
    for ticks, d, nbytes in run.memory.tolist():
        curves[d].append((to_seconds(ticks), nbytes))
    memory = {name: tuple(curve) for name, curve in zip(names, curves, strict=True)}
    return Timeline(tuple(spans[i] for i in by_start), tuple(transfers), memory)
