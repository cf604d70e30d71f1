"""A second simulator, in plain Python and whole numbers, written from the rules and not from the engine.

An op waits for the op before it on its device, its inputs (a transfer, when they are made elsewhere)
and what it comes after; a transfer for its tensor and for the transfer before it on each of its lanes.
Each starts at the end of what it waits for last.

A `Moment` is (ticks, wave): what takes no time ends in the next wave of the instant in which it began,
what takes time ends in wave 0. So things of zero duration still come one after the other, and "ends come
before starts" has a meaning among them. Memory is counted at each moment, ends before starts.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from graphlib import TopologicalSorter
from itertools import pairwise, permutations
from typing import NamedTuple

from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.plan import Bounds, Placed, Plan, Prediction, TransferKey

Moment = tuple[int, int]
Orders = Mapping[str, Sequence[str]]

TICKS = 10**12


class Played(NamedTuple):
    """Moments of ops by name and of transfers by key."""

    start: dict[str | TransferKey, Moment]
    end: dict[str | TransferKey, Moment]

    @property
    def makespan(self) -> int:
        return max((ticks for ticks, _ in self.end.values()), default=0)


def op_ticks(graph: Graph, cluster: Cluster, op: str, device: str) -> int:
    on_host = cluster.device[device].in_host_memory and graph.op[op].host_seconds is not None
    seconds = graph.op[op].host_seconds if on_host else graph.op[op].seconds
    assert seconds is not None, "the reference knows declared times only"
    return round(Fraction(seconds) / Fraction(cluster.device[device].speed) * TICKS)


def transfer_ticks(graph: Graph, cluster: Cluster, key: TransferKey) -> int:
    tensor = graph.tensor[key[0]]
    if tensor.seconds is not None:
        return round(Fraction(tensor.seconds) * TICKS)
    link = cluster.link_between(key[1], key[2])
    return round(Fraction(link.latency_seconds) * TICKS) + round(
        tensor.nbytes / Fraction(link.bytes_per_second) * TICKS
    )


def needed_transfers(graph: Graph, device: Mapping[str, str]) -> list[TransferKey]:
    """Each tensor once to each other device on which it is read."""
    keys = [(name, device[graph.producer[name].name], device[op.name]) for op in graph.ops for name in op.inputs]
    return list(dict.fromkeys(key for key in keys if key[1] != key[2]))


def waits(
    graph: Graph, cluster: Cluster, device: Mapping[str, str], order: Orders, transfers: Sequence[TransferKey]
) -> dict[str | TransferKey, list[str | TransferKey]]:
    """What each op and transfer waits for; a device that works in host memory has no lanes."""
    found: dict[str | TransferKey, list[str | TransferKey]] = {}
    for op in graph.ops:
        here = device[op.name]
        found[op.name] = list(op.after)
        for name in op.inputs:
            there = device[graph.producer[name].name]
            found[op.name].append(graph.producer[name].name if there == here else (name, there, here))
    for names in order.values():
        for first, second in pairwise(names):
            found[second].append(first)
    last: dict[tuple[str, str], TransferKey] = {}
    for key in transfers:
        found[key] = [graph.producer[key[0]].name]
        lanes = {
            "sequential": [("any", key[1]), ("any", key[2])],
            "duplex": [("send", key[1]), ("receive", key[2])],
            "parallel": [],
        }[cluster.contention]
        lanes = [lane for lane in lanes if not cluster.device[lane[1]].in_host_memory]
        found[key] += [last[lane] for lane in lanes if lane in last]
        last.update(dict.fromkeys(lanes, key))
    return found


def play(
    graph: Graph, cluster: Cluster, device: Mapping[str, str], order: Orders, transfers: Sequence[TransferKey]
) -> Played:
    """The recurrence. Raises `graphlib.CycleError` when the orders wait for each other."""
    before = waits(graph, cluster, device, order, transfers)
    start: dict[str | TransferKey, Moment] = {}
    end: dict[str | TransferKey, Moment] = {}
    for item in TopologicalSorter(before).static_order():
        start[item] = ticks, wave = max((end[other] for other in before[item]), default=(0, 0))
        if isinstance(item, str):
            duration = op_ticks(graph, cluster, item, device[item])
        else:
            duration = transfer_ticks(graph, cluster, item)
        end[item] = (ticks + duration, 0) if duration else (ticks, wave + 1)
    return Played(start, end)


class Interval(NamedTuple):
    """Bytes on a device from one moment to another, or, without an end, to the end of the step."""

    device: str
    begin: Moment
    end: Moment | None
    nbytes: int


def intervals(
    graph: Graph, device: Mapping[str, str], transfers: Sequence[TransferKey], played: Played
) -> Iterator[Interval]:
    """Everything that takes memory, but for what persists."""
    copies = {(key[0], key[2]): key for key in transfers}
    held: dict[tuple[str, str], list[Moment | None]] = {}

    def storage(tensor: str, where: str) -> tuple[str, str]:
        """The tensor and device of which `tensor`, as read on `where`, is a view."""
        op, base = graph.producer[tensor], _base(graph, tensor)
        return storage(base, where) if device[op.name] == where and base is not None else (tensor, where)

    for op in graph.ops:
        here, end = device[op.name], played.end[op.name]
        for name in op.inputs:
            held.setdefault(storage(name, here), []).append(end)
        for t in op.outputs:
            ends = held.setdefault(storage(t.name, here), [])
            ends += [end, *([None] if t.keep else [])]
            gone = [played.end[key] for key in transfers if key[0] == t.name]
            if t.scattered and t.nbytes:
                yield from (Interval(here, played.start[op.name], at, t.nbytes) for at in gone)
            else:
                ends += gone
        yield Interval(here, played.start[op.name], end, op.temp_bytes)
    for (name, here), ends in held.items():
        tensor, maker = graph.tensor[name], graph.producer[name].name
        last = None if None in ends else max(m for m in ends if m is not None)
        if device[maker] == here:
            yield Interval(here, played.start[maker], last, max(0, tensor.nbytes - tensor.held))
        else:
            yield Interval(here, played.start[copies[name, here]], last, tensor.nbytes)


def _root(graph: Graph, tensor: str) -> str:
    base = graph.tensor[tensor].alias_of
    return tensor if base is None else _root(graph, base)


def _base(graph: Graph, tensor: str) -> str | None:
    """The input that a view is a view of."""
    if graph.tensor[tensor].alias_of is None:
        return None
    inputs = graph.producer[tensor].inputs
    return next((name for name in inputs if _root(graph, name) == _root(graph, tensor)), None)


def memory(
    graph: Graph, cluster: Cluster, device: Mapping[str, str], transfers: Sequence[TransferKey], played: Played
) -> dict[str, list[tuple[Moment, int]]]:
    """Bytes on each device from each moment on."""
    changes: dict[str, dict[Moment, int]] = {d.name: {(0, 0): 0} for d in cluster.devices}
    for op in graph.ops:
        changes[device[op.name]][0, 0] += op.persistent_bytes
    for one in intervals(graph, device, transfers, played):
        on = changes[one.device]
        on[one.begin] = on.get(one.begin, 0) + one.nbytes
        if one.end is not None:
            on[one.end] = on.get(one.end, 0) - one.nbytes
    curves: dict[str, list[tuple[Moment, int]]] = {}
    for name, on in changes.items():
        total, curves[name] = 0, []
        for moment in sorted(on):
            total += on[moment]
            curves[name].append((moment, total))
    return curves


def peaks(
    graph: Graph, cluster: Cluster, device: Mapping[str, str], transfers: Sequence[TransferKey], played: Played
) -> dict[str, int]:
    curves = memory(graph, cluster, device, transfers, played)
    return {name: max(nbytes for _, nbytes in curve) for name, curve in curves.items()}


def peaks_of(graph: Graph, plan: Plan) -> dict[str, int]:
    """The peaks of a plan."""
    played = play(graph, plan.cluster, plan.device, plan.order, plan.transfers)
    return peaks(graph, plan.cluster, plan.device, plan.transfers, played)


def makespan_of(graph: Graph, plan: Plan) -> int:
    """The makespan of a plan, in ticks."""
    return play(graph, plan.cluster, plan.device, plan.order, plan.transfers).makespan


def random_plan(graph: Graph, cluster: Cluster, seed: int) -> Plan:
    """Every op anywhere, ops and transfers in a random order that can be carried out."""
    r = random.Random(seed)
    names = [d.name for d in cluster.devices]
    device = {op.name: r.choice(names) for op in graph.ops}
    before = waits(graph, cluster, device, {}, ())
    for key in needed_transfers(graph, device):
        before[key] = [graph.producer[key[0]].name]
    sorter = TopologicalSorter(before)
    sorter.prepare()
    free, sequence = [], []
    while sorter.is_active():
        free += sorted(sorter.get_ready(), key=str)
        sequence.append(free.pop(r.randrange(len(free))))
        sorter.done(sequence[-1])
    order = {d: tuple(x for x in sequence if isinstance(x, str) and device[x] == d) for d in names}
    return as_plan(graph, cluster, device, order, tuple(x for x in sequence if not isinstance(x, str)))


def as_plan(
    graph: Graph,
    cluster: Cluster,
    device: Mapping[str, str],
    order: Mapping[str, tuple[str, ...]],
    transfers: tuple[TransferKey, ...],
) -> Plan:
    nothing = Prediction(0.0, {d.name: 0 for d in cluster.devices})
    return Plan(graph.digest, {}, cluster, Placed("test"), device, order, transfers, nothing, Bounds())


def linear_extensions(graph: Graph) -> Iterator[tuple[int, ...]]:
    """All topological orders, as indices; for tiny graphs."""
    index = {op.name: i for i, op in enumerate(graph.ops)}
    before = [{index[graph.producer[t].name] for t in op.inputs} | {index[a] for a in op.after} for op in graph.ops]
    for order in permutations(range(len(graph.ops))):
        done: set[int] = set()
        for i in order:
            if not before[i] <= done:
                break
            done.add(i)
        else:
            yield order
