"""Steps in which everything was noted, put together from what each device's process noted."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan

__all__ = ["Curve", "Notes", "StepNotes", "op_times", "timelines"]

Curve = tuple[tuple[float, int], ...]
"""(seconds, bytes) at each change."""


@dataclass(frozen=True, slots=True)
class StepNotes:
    """One step on one device; times by `time.perf_counter`, which the processes of a machine share.

    Attributes:
        begin, end: of the step.
        ops: two for each op of `Notes.ops`: when it began and ended.
        sent: by tensor and destination, when it began to be sent.
        came: by tensor and source, when it was seen to have arrived.
    """

    begin: float
    end: float
    ops: tuple[float, ...]
    sent: Mapping[tuple[str, str], float]
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

    On several machines, whose clocks differ, all are taken to begin a step at once, for they wait for
    each other before.

    Args:
        graph: of the plan.
        plan: that was run.
        notes: by device.
    """
    count = min((len(each.steps) for each in notes.values()), default=0)
    return tuple(_timeline(graph, plan, notes, k) for k in range(count))


def _timeline(graph: Graph, plan: Plan, notes: Mapping[str, Notes], k: int) -> Timeline:
    zero = _zero(notes, k)
    spans: list[OpSpan] = []
    for device, each in notes.items():
        times = [at - zero[device] for at in each.steps[k].ops]
        spans += [OpSpan(op, device, times[2 * i], times[2 * i + 1]) for i, op in enumerate(each.ops)]
    seen = {span.op for span in spans}
    before = [OpSpan(op.name, plan.device[op.name], 0.0, 0.0) for op in graph.ops if op.name not in seen]
    transfers = []
    for tensor, source, destination in plan.transfers:
        start = notes[source].steps[k].sent[tensor, destination] - zero[source]
        came = notes[destination].steps[k].came.get((tensor, source), notes[destination].steps[k].end)
        end = max(start, came - zero[destination])
        transfers.append(TransferSpan(tensor, source, destination, start, end, graph.tensor[tensor].nbytes))
    length = max((each.steps[k].end - zero[device] for device, each in notes.items()), default=0.0)
    return Timeline(
        tuple(sorted([*before, *spans], key=lambda s: (s.start, s.end))),
        tuple(sorted(transfers, key=lambda s: (s.start, s.end))),
        {device: _stretched(each.memory, length) for device, each in notes.items() if each.memory},
    )


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


def op_times(graph: Graph, steps: Sequence[Timeline]) -> dict[str, float]:
    """Time of each kind of op, in seconds by `Op.key`: the mean of its ops', so that their sum is kept.

    Args:
        graph: that was run.
        steps: an op's time is the median of them, which one slow step does not move.
    """
    each: dict[str, list[float]] = {}
    for step in steps:
        for span in step.ops:
            each.setdefault(span.op, []).append(span.end - span.start)
    keys: dict[str, list[float]] = {}
    for op in graph.ops:
        if op.key and any(each.get(op.name, ())):
            keys.setdefault(op.key, []).append(statistics.median(each[op.name]))
    return {key: statistics.fmean(times) for key, times in keys.items()}
