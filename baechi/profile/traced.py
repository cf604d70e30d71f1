"""Steps in which everything was noted, put together from what each device's process noted."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from baechi.ir.cluster import Cluster
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.profile.measured import middle_half

__all__ = ["Curve", "Notes", "StepNotes", "busy_steps", "op_times", "own_seconds", "timelines"]

Curve = tuple[tuple[float, int], ...]
"""(seconds, bytes) at each change."""


@dataclass(frozen=True, slots=True)
class StepNotes:
    """One step on one device; times by `time.perf_counter`, which the processes of a machine share.

    Attributes:
        begin, end: of the step.
        ops: four for each op of `Notes.ops`: when it began and ended, when the device was done with it, for
            what it made was under way to other devices and what it needed was gone; and for how many
            seconds before it the device made ready to receive.
        sent: by tensor and destination, when it began to be sent.
        awaited: by tensor and source, when there was room for it.
        came: by tensor and source, when it was seen to have arrived.
    """

    begin: float
    end: float
    ops: tuple[float, ...]
    sent: Mapping[tuple[str, str], float]
    awaited: Mapping[tuple[str, str], float]
    came: Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Notes:
    """What one device's process noted.

    Attributes:
        machine: that it was on.
        ops: those that it carries out, in their order.
        steps: one for each traced step.
        memory: of one more step, from its first change on; empty where it cannot be told.
    """

    machine: str
    ops: tuple[str, ...]
    steps: tuple[StepNotes, ...]
    memory: Curve


def timelines(graph: Graph, plan: Plan, notes: Mapping[str, Notes]) -> tuple[Timeline, ...]:
    """Each traced step as a timeline; ops that are there before a step take no time at its start.

    A transfer begins when it has been sent and there is room for it where it goes.

    On several machines, whose clocks differ, all are taken to begin a step at once, for they wait for
    each other before.

    Args:
        graph: of the plan.
        plan: that was run.
        notes: by device.
    """
    return tuple(_timeline(graph, plan, notes, k) for k in _steps(notes))


def _timeline(graph: Graph, plan: Plan, notes: Mapping[str, Notes], k: int) -> Timeline:
    zero = _zero(notes, k)
    spans = _spans(notes, k)
    seen = {span.op for span in spans}
    before = [OpSpan(op.name, plan.device[op.name], 0.0, 0.0) for op in graph.ops if op.name not in seen]
    transfers = []
    for tensor, source, destination in plan.transfers:
        there = notes[destination].steps[k]
        start = notes[source].steps[k].sent[tensor, destination] - zero[source]
        start = max(start, there.awaited.get((tensor, source), there.begin) - zero[destination])
        end = max(start, there.came.get((tensor, source), there.end) - zero[destination])
        transfers.append(TransferSpan(tensor, source, destination, start, end, graph.tensor[tensor].nbytes))
    length = max((each.steps[k].end - zero[device] for device, each in notes.items()), default=0.0)
    return Timeline(
        tuple(sorted([*before, *spans], key=lambda s: (s.start, s.end))),
        tuple(sorted(transfers, key=lambda s: (s.start, s.end))),
        {device: _stretched(each.memory, length) for device, each in notes.items() if each.memory},
    )


def busy_steps(notes: Mapping[str, Notes]) -> tuple[Timeline, ...]:
    """Each traced step with the ops alone, each for as long as its device had to do with it.

    Sending and receiving take a device's time: what an op costs is more than what it computes.
    """
    return tuple(Timeline(tuple(_spans(notes, k, busy=True))) for k in _steps(notes))


def _steps(notes: Mapping[str, Notes]) -> range:
    return range(min((len(each.steps) for each in notes.values()), default=0))


def _spans(notes: Mapping[str, Notes], k: int, *, busy: bool = False) -> list[OpSpan]:
    """The ops of a step: while each ran, or for as long as its device had to do with it, waits left out."""
    zero = _zero(notes, k)
    spans: list[OpSpan] = []
    for device, each in notes.items():
        stamps = iter(each.steps[k].ops)
        for op, (enter, leave, done, posting) in zip(each.ops, zip(*[stamps] * 4, strict=True), strict=True):
            start, end = (enter - posting, done) if busy else (enter, leave)
            spans.append(OpSpan(op, device, start - zero[device], end - zero[device]))
    return spans


def _zero(notes: Mapping[str, Notes], k: int) -> dict[str, float]:
    """When the step began, on each device's clock."""
    begins = {device: each.steps[k].begin for device, each in notes.items()}
    if len({each.machine for each in notes.values()}) > 1:
        return begins
    return dict.fromkeys(begins, min(begins.values(), default=0.0))


def _stretched(curve: Curve, length: float) -> Curve:
    """A curve of a step that took longer or shorter, because its memory was watched, as one of this length."""
    last = curve[-1][0]
    return tuple((seconds * length / last if last else 0.0, nbytes) for seconds, nbytes in curve)


def op_times(graph: Graph, cluster: Cluster, steps: Sequence[Timeline]) -> dict[str, dict[str, float]]:
    """Time of each kind of op, in seconds by device type and `Op.key`: the mean of its ops', so that their sum is kept.

    Of the steps, the half of middle length counts, for one that was disturbed says nothing of the
    ops. Of those, an op's time is the mean: disturbances are always delays, so that medians would
    add up to less than any step takes.

    Args:
        graph: that was run.
        cluster: on which.
        steps: in which everything was noted; of them the ops.
    """
    each: dict[str, list[float]] = {}
    kind = {}
    for k in middle_half([step.step_seconds for step in steps]):
        step = steps[k]
        for span, seconds in zip(step.ops, own_seconds(step, cluster), strict=True):
            each.setdefault(span.op, []).append(seconds)
            kind[span.op] = cluster.device[span.device].type
    found: dict[str, dict[str, list[float]]] = {device.type: {} for device in cluster.devices}
    for op in graph.ops:
        if op.key and any(each.get(op.name, ())):
            found[kind[op.name]].setdefault(op.key, []).append(statistics.fmean(each[op.name]))
    return {kind: {key: statistics.fmean(t) for key, t in found[kind].items()} for kind in sorted(found)}


def own_seconds(step: Timeline, cluster: Cluster) -> list[float]:
    """What each op of a step would have taken on cores of its own.

    Where more ops ran on a host than it has cores, each got its share of them: the simulator slows
    ops down so, and from their own time.

    Args:
        step: that ran.
        cluster: whose hosts may have fewer cores than devices.
    """
    own = [span.end - span.start for span in step.ops]
    for host, cores in cluster.cores.items():
        here = [i for i, span in enumerate(step.ops) if own[i] > 0 and cluster.device[span.device].host == host]
        if not here:
            continue
        moments = [step.ops[i].start for i in here] + [step.ops[i].end for i in here]
        times, at = np.unique(moments, return_inverse=True)
        start, end = np.split(at, 2)
        threads = np.array([cluster.device[step.ops[i].device].threads for i in here])
        change = np.zeros(len(times))
        np.add.at(change, start, threads)
        np.subtract.at(change, end, threads)
        share = np.minimum(1.0, cores / np.maximum(np.cumsum(change), 1))[:-1]
        done = np.concatenate([[0.0], np.cumsum(share * np.diff(times))])
        for i, seconds in zip(here, (done[end] - done[start]).tolist(), strict=True):
            own[i] = seconds
    return own
