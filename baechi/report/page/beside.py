"""Predicted beside measured: the whole, memory, the time of ops, and which ops are furthest off."""

from collections.abc import Iterable
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.op import PHASES
from baechi.profile.profiled import Profiled
from baechi.report.difference import Difference, differences, worst_ops
from baechi.report.files import Step

__all__ = ["Beside", "OffOp", "Pair", "beside"]

_WORST = 15


@dataclass(frozen=True, slots=True)
class Pair:
    """A predicted amount and what was measured, in seconds or bytes.

    Attributes:
        name: of what.
        count: of how many things it is the sum.
        predicted, measured: the amounts.
    """

    name: str
    count: int
    predicted: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Measured over predicted; None where nothing was predicted."""
        return self.measured / self.predicted if self.predicted > 0 else None


@dataclass(frozen=True, slots=True)
class OffOp:
    """An op whose time is off."""

    kind: str
    device: str
    module: str
    source: str
    pair: Pair


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

    step: Pair
    transfers: Pair
    peaks: tuple[Pair, ...]
    steps: int
    spread: float
    outliers: tuple[tuple[int, float], ...]
    overhead: float
    losses: tuple[float, ...]
    kinds: tuple[Pair, ...]
    phases: tuple[Pair, ...]
    devices: tuple[Pair, ...]
    worst: tuple[OffOp, ...]


def beside(step: Step, profiled: Profiled) -> Beside:
    """Compare a step with a run of it."""
    graph, expected, measured = step.graph, step.timeline, profiled.measured
    names = [d.name for d in step.plan.cluster.devices]
    sent = [sum(s.end - s.start for s in t.transfers) for t in (expected, profiled.timeline)]
    device = step.plan.device
    return Beside(
        Pair("step", 1, expected.step_seconds, measured.step_seconds),
        Pair("transfers", len(expected.transfers), sent[0], sent[1]),
        tuple(_peak(step, name, measured.peak_bytes[name]) for name in names if name in measured.peak_bytes),
        len(measured.all_seconds),
        measured.spread,
        tuple((i + 1, measured.all_seconds[i]) for i in profiled.outliers),
        profiled.overhead,
        (measured.losses[0], measured.losses[-1]) if measured.losses else (),
        _pairs(differences(graph, expected, profiled.timeline, lambda op: op.kind)),
        _in_order(_pairs(differences(graph, expected, profiled.timeline, lambda op: op.phase)), PHASES),
        _in_order(_pairs(differences(graph, expected, profiled.timeline, lambda op: device[op.name])), names),
        tuple(_off(graph, step, one) for one in worst_ops(graph, expected, profiled.timeline, _WORST)),
    )


def _peak(step: Step, device: str, measured: int) -> Pair:
    return Pair(device, len(step.plan.order.get(device, ())), step.timeline.peak_bytes[device], measured)


def _pairs(found: Iterable[Difference]) -> tuple[Pair, ...]:
    return tuple(Pair(d.name, d.ops, d.predicted, d.measured) for d in found if d.predicted or d.measured)


def _in_order(pairs: Iterable[Pair], names: Iterable[str]) -> tuple[Pair, ...]:
    known = {pair.name: pair for pair in pairs}
    return tuple(known[name] for name in names if name in known)


def _off(graph: Graph, step: Step, found: Difference) -> OffOp:
    op = graph.op[found.name]
    pair = Pair(found.name, 1, found.predicted, found.measured)
    return OffOp(op.kind, step.plan.device[op.name], op.module, op.source, pair)
