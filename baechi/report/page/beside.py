"""Predicted beside measured: the whole, memory, the time of ops, and which ops are furthest off."""

from collections.abc import Iterable
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.op import PHASES
from baechi.profile.profiled import Profiled
from baechi.report.difference import Difference, differences, worst_ops
from baechi.report.files import Step

__all__ = ["Beside", "OffOp", "beside"]

_WORST = 15


@dataclass(frozen=True, slots=True)
class OffOp:
    """An op whose time is off."""

    kind: str
    device: str
    module: str
    source: str
    time: Difference


@dataclass(frozen=True, slots=True)
class Beside:
    """A predicted step beside the measured one.

    Attributes:
        step: their times; the measured one is the median.
        transfers: time of all transfers; when measured, with what they wait.
        peaks: bytes by device.
        steps: how many were timed.
        spread: of their times: between the quartiles, as a fraction of the median.
        outliers: number, from 1, and seconds of the steps that are far off the others.
        overhead: what noting added to a step, as a fraction.
        losses: the first and the last, when there are any.
        kinds: of ops, the one furthest off first.
        phases, devices: time that their ops take.
        worst: ops furthest off in seconds.
    """

    step: Difference
    transfers: Difference
    peaks: tuple[Difference, ...]
    steps: int
    spread: float
    outliers: tuple[tuple[int, float], ...]
    overhead: float
    losses: tuple[float, ...]
    kinds: tuple[Difference, ...]
    phases: tuple[Difference, ...]
    devices: tuple[Difference, ...]
    worst: tuple[OffOp, ...]


def beside(step: Step, profiled: Profiled) -> Beside:
    """Compare a step with a run of it."""
    graph, expected, measured = step.graph, step.timeline, profiled.measured
    names = [d.name for d in step.plan.cluster.devices]
    sent = [sum(s.end - s.start for s in t.transfers) for t in (expected, profiled.timeline)]
    device = step.plan.device
    return Beside(
        Difference("step", 1, expected.step_seconds, measured.step_seconds),
        Difference("transfers, until seen", len(expected.transfers), sent[0], sent[1]),
        tuple(_peak(step, name, measured.peak_bytes[name]) for name in names if name in measured.peak_bytes),
        len(measured.all_seconds),
        measured.spread,
        tuple((i + 1, measured.all_seconds[i]) for i in profiled.outliers),
        profiled.overhead,
        (measured.losses[0], measured.losses[-1]) if measured.losses else (),
        _some(differences(graph, expected, profiled.timeline, lambda op: op.kind)),
        _in_order(_some(differences(graph, expected, profiled.timeline, lambda op: op.phase)), PHASES),
        _in_order(_some(differences(graph, expected, profiled.timeline, lambda op: device[op.name])), names),
        tuple(_off(graph, step, one) for one in worst_ops(graph, expected, profiled.timeline, _WORST)),
    )


def _peak(step: Step, device: str, measured: int) -> Difference:
    return Difference(device, len(step.plan.order.get(device, ())), step.timeline.peak_bytes[device], measured)


def _some(found: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple(d for d in found if d.predicted or d.measured)


def _in_order(found: Iterable[Difference], names: Iterable[str]) -> tuple[Difference, ...]:
    known = {d.name: d for d in found}
    return tuple(known[name] for name in names if name in known)


def _off(graph: Graph, step: Step, found: Difference) -> OffOp:
    op = graph.op[found.name]
    return OffOp(op.kind, step.plan.device[op.name], op.module, op.source, found)
