"""Predicted beside measured: by op kind, phase and device, and the ops that are furthest off."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.op import PHASES
from baechi.ir.timeline import OpSpan
from baechi.report.files import Measured, Step, StepTimes

__all__ = ["Beside", "OpPair", "Pair", "beside"]

_WORST = 15
_OUTLIER_SPREADS = 3


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
class OpPair:
    """The same of one op, and what op it is."""

    op: str
    kind: str
    device: str
    module: str
    pair: Pair


@dataclass(frozen=True, slots=True)
class Beside:
    """A predicted step beside the measured one.

    Attributes:
        step: their times; the measured one is the median.
        times: of all steps.
        outliers: number and seconds of the steps that took much longer than the median.
        overhead: what profiling added, as a fraction.
        losses: first and last, when there are any.
        kinds: op kinds, the one furthest off first.
        phases, devices: time that ops take.
        transfers: time of all transfers.
        peaks: bytes by device.
        worst: ops furthest off in seconds, the worst first.
    """

    step: Pair
    times: StepTimes
    outliers: tuple[tuple[int, float], ...]
    overhead: float
    losses: tuple[float, ...]
    kinds: tuple[Pair, ...]
    phases: tuple[Pair, ...]
    devices: tuple[Pair, ...]
    transfers: Pair
    peaks: tuple[Pair, ...]
    worst: tuple[OpPair, ...]


def beside(step: Step, measured: Measured) -> Beside:
    """Compare what both timelines have; an op that only one of them has is left out."""
    graph, timeline = step.graph, step.timeline
    both = [(timeline.span[s.op], s) for s in measured.timeline.ops if s.op in timeline.span]
    names = [d.name for d in step.plan.cluster.devices]
    sent = [sum(s.end - s.start for s in t.transfers) for t in (timeline, measured.timeline)]
    peaks = measured.peak_bytes or measured.timeline.peak_bytes
    return Beside(
        Pair("step", 1, timeline.step_seconds, measured.step.median),
        measured.step,
        _outliers(measured.step),
        measured.overhead,
        (measured.losses[0], measured.losses[-1]) if measured.losses else (),
        tuple(sorted(_sums(both, lambda name: graph.op[name].kind), key=lambda p: -abs(p.measured - p.predicted))),
        _in_order(_sums(both, lambda name: graph.op[name].phase), PHASES),
        _in_order(_sums(both, lambda name: step.plan.device[name]), names),
        Pair("transfers", len(measured.timeline.transfers), sent[0], sent[1]),
        tuple(
            Pair(name, 1, float(timeline.peak_bytes.get(name, 0)), float(peaks[name])) for name in names if name in peaks
        ),
        _worst(graph, both),
    )


def _outliers(times: StepTimes) -> tuple[tuple[int, float], ...]:
    most = times.median + _OUTLIER_SPREADS * max(times.spread, 0.01 * times.median)
    return tuple((i, seconds) for i, seconds in enumerate(times.all) if seconds > most)


def _sums(both: Iterable[tuple[OpSpan, OpSpan]], key: Callable[[str], str]) -> tuple[Pair, ...]:
    sums: dict[str, list[float]] = {}
    for predicted, measured in both:
        row = sums.setdefault(key(predicted.op), [0, 0.0, 0.0])
        row[0] += 1
        row[1] += predicted.end - predicted.start
        row[2] += measured.end - measured.start
    return tuple(Pair(name, int(n), p, m) for name, (n, p, m) in sums.items())


def _in_order(pairs: Iterable[Pair], names: Iterable[str]) -> tuple[Pair, ...]:
    known = {pair.name: pair for pair in pairs}
    return tuple(known[name] for name in names if name in known)


def _worst(graph: Graph, both: list[tuple[OpSpan, OpSpan]]) -> tuple[OpPair, ...]:
    def off(spans: tuple[OpSpan, OpSpan]) -> float:
        return abs((spans[1].end - spans[1].start) - (spans[0].end - spans[0].start))

    worst = sorted(both, key=off, reverse=True)[:_WORST]
    return tuple(
        OpPair(p.op, graph.op[p.op].kind, m.device, graph.op[p.op].module, Pair(p.op, 1, p.end - p.start, m.end - m.start))
        for p, m in worst
    )
