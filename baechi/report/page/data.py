"""All that a page says, as plain data: what is drawn from it adds nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from baechi.ir.cluster import UNLIMITED_BYTES
from baechi.ir.graph import Graph
from baechi.ir.timeline import OpSpan, TransferSpan
from baechi.report.explanation import Categories, Explanation, Share, explain, held_by_module
from baechi.report.facts import Traffic, count_ops, parameter_count, traffic_of
from baechi.report.files import Step
from baechi.report.page.beside import Beside, beside
from baechi.report.page.coarse import Drawing, drawing
from baechi.report.page.verdict import verdict
from baechi.report.page.whatif import WhatIf, what_if
from baechi.report.text import head
from baechi.sim.holders import Peak

__all__ = ["Compared", "DeviceRow", "Fact", "HeldRow", "Hop", "Page", "PeakRow", "REPORT_SCHEMA", "StepPage", "page_of", "page_to_dict"]

REPORT_SCHEMA = "baechi/report/1"
_MOST_HOPS, _MOST_HELD = 20, 12


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the list at the top: what is counted, how much, and in which unit."""

    label: str
    amount: float | str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device in a step.

    Attributes:
        name, type: of the device.
        ops: how many run on it.
        busy_seconds: time in which it computes.
        share: of the step.
        peak_bytes: highest memory.
        cap_bytes: what it has; None when there is no limit.
        sent_bytes, received_bytes: in a step.
    """

    name: str
    type: str
    ops: int
    busy_seconds: float
    share: float
    peak_bytes: int
    cap_bytes: int | None
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Hop:
    """An op or a transfer of the critical path.

    Attributes:
        name: of the op or the tensor.
        kind: of the op; ``transfer``.
        where: the device, or both.
        module, source: of the op.
        start, seconds: when, and how long.
    """

    name: str
    kind: str
    where: str
    module: str
    source: str
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldRow:
    """Something that is in memory at a peak."""

    name: str
    kind: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class PeakRow:
    """A device at its peak, and who holds it.

    Attributes:
        device: which one.
        seconds: when.
        nbytes: how much.
        running: the op that runs then.
        kinds, modules: bytes by kind of memory, and by module.
        largest: single holders.
    """

    device: str
    seconds: float
    nbytes: int
    running: str
    kinds: tuple[Share, ...]
    modules: tuple[Share, ...]
    largest: tuple[HeldRow, ...]


@dataclass(frozen=True, slots=True)
class StepPage:
    """All that is said of one step.

    Attributes:
        name, head: what it is called, and what it is.
        verdict: sentences.
        facts: numbers of the whole.
        devices: one row each.
        path: seconds of the critical path by what they are spent on.
        hops: its longest ops and transfers.
        bounds: seconds by the name of the proof.
        objective_seconds, gap: what the placer made small, and how far it is above the best bound.
        peaks: of each device.
        traffic: from device to device.
        changes: what if.
        beside: the measured step, if there is one.
        drawing: the graph by module.
        plan: who made it, when it was, with what.
    """

    name: str
    head: str
    verdict: tuple[str, ...]
    facts: tuple[Fact, ...]
    devices: tuple[DeviceRow, ...]
    path: tuple[Share, ...]
    hops: tuple[Hop, ...]
    bounds: tuple[Share, ...]
    objective: str
    objective_seconds: float
    gap: float
    peaks: tuple[PeakRow, ...]
    traffic: tuple[Traffic, ...]
    changes: tuple[WhatIf, ...]
    beside: Beside | None
    drawing: Drawing
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """A step in one line among others.

    Attributes:
        name, placer: of the step.
        devices: how many compute.
        step_seconds: as predicted.
        ratio: that over the first step's, less 1.
        measured_seconds: the median of the run, if there is one.
        gap: above the lower bound; None without one.
        compute, transfer, waiting: shares of the critical path.
        fullest: the highest peak over its cap.
        traffic_bytes: sent in a step.
        moved: ops that are on another device than in the first step; None for another graph.
    """

    name: str
    placer: str
    devices: int
    step_seconds: float
    ratio: float
    measured_seconds: float | None
    gap: float | None
    compute: float
    transfer: float
    waiting: float
    fullest: float
    traffic_bytes: int
    moved: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Steps, and a comparison when there are several."""

    title: str
    steps: tuple[StepPage, ...]
    compared: tuple[Compared, ...]


def page_of(steps: Sequence[Step]) -> Page:
    """Work out what there is to say.

    Args:
        steps: at least one.
    """
    found = [explain(step.graph, step.plan, step.timeline) for step in steps]
    pages = tuple(_page(step, one) for step, one in zip(steps, found, strict=True))
    compared = tuple(_compared(step, one, steps[0]) for step, one in zip(steps, found, strict=True))
    title = steps[0].graph.name if len(steps) == 1 else f"{steps[0].graph.name}: {len(steps)} steps compared"
    return Page(title, pages, compared if len(steps) > 1 else ())


def page_to_dict(page: Page) -> dict[str, Any]:
    """A page as plain data, with the version of its shape."""
    return {"schema": REPORT_SCHEMA, **asdict(page)}


def _page(step: Step, found: Explanation) -> StepPage:
    graph, plan = step.graph, step.plan
    changes = what_if(step)
    path = [Share(f"computing on {s.name}", s.amount) for s in found.path.compute]
    return StepPage(
        step.name,
        head(graph, plan.cluster),
        verdict(step, found, changes),
        _facts(step),
        _devices(step),
        (*path, Share("transfers", found.path.transfer), Share("waiting", found.path.waiting)),
        _hops(graph, found),
        tuple(Share(name, seconds) for name, seconds in plan.bounds.proofs.items()),
        plan.objective,
        plan.objective_seconds,
        plan.gap,
        tuple(_peak(graph, peak) for peak in found.peaks),
        traffic_of(step.timeline),
        changes,
        beside(step, step.profiled) if step.profiled is not None else None,
        drawing(graph, plan.device),
        found.step_seconds,
    )


def _facts(step: Step) -> tuple[Fact, ...]:
    graph, plan = step.graph, step.plan
    counts, parameters = count_ops(graph), parameter_count(graph)
    options = ", ".join(f"{k}={v}" for k, v in plan.placer.options.items())
    phases = [Fact(f"ops, {phase}", counts[phase], "count") for phase in ("forward", "backward", "update")]
    return (
        Fact("ops", counts["ops"], "count"),
        Fact("ops that take time", counts["compute"], "count"),
        *(fact for fact in phases if fact.amount),
        *([Fact("parameters", parameters, "count")] if parameters else []),
        Fact("placed by", plan.placer.name + (f" ({options})" if options else "")),
        Fact("placed in", plan.placer.seconds, "seconds"),
        Fact("seed", str(plan.seed)),
        Fact("contention", plan.cluster.contention),
        Fact("graph", plan.graph),
        Fact("baechi", plan.version),
    )


def _devices(step: Step) -> tuple[DeviceRow, ...]:
    timeline, plan = step.timeline, step.plan
    sent = dict.fromkeys(plan.cluster.device, 0)
    received = dict(sent)
    for span in timeline.transfers:
        sent[span.source] += span.nbytes
        received[span.destination] += span.nbytes
    rows = []
    for d in plan.cluster.devices:
        busy = timeline.busy_seconds.get(d.name, 0.0)
        share = busy / timeline.step_seconds if timeline.step_seconds else 0.0
        ops, cap = len(plan.order.get(d.name, ())), d.cap if d.cap < UNLIMITED_BYTES else None
        peak = timeline.peak_bytes[d.name]
        rows.append(DeviceRow(d.name, d.type, ops, busy, share, peak, cap, sent[d.name], received[d.name]))
    return tuple(rows)


def _hops(graph: Graph, found: Explanation) -> tuple[Hop, ...]:
    spans = sorted((*found.path.ops, *found.path.transfers), key=lambda s: s.start - s.end)
    return tuple(_hop(graph, span) for span in spans[:_MOST_HOPS])


def _hop(graph: Graph, span: OpSpan | TransferSpan) -> Hop:
    if isinstance(span, TransferSpan):
        where = f"{span.source} to {span.destination}"
        return Hop(span.tensor, "transfer", where, "", "", span.start, span.end - span.start)
    op = graph.op[span.op]
    return Hop(op.name, op.kind, span.device, op.module, op.source, span.start, span.end - span.start)


def _peak(graph: Graph, peak: Peak) -> PeakRow:
    return PeakRow(
        peak.device,
        peak.seconds,
        peak.nbytes,
        peak.running,
        Categories(graph).sums(peak),
        held_by_module(graph, peak)[:_MOST_HELD],
        tuple(HeldRow(h.tensor or h.op, h.kind, h.nbytes) for h in peak.holders[:_MOST_HELD]),
    )


def _compared(step: Step, found: Explanation, first: Step) -> Compared:
    plan, timeline, total = step.plan, step.timeline, found.step_seconds or 1.0
    base = first.timeline.step_seconds
    caps = plan.cluster.device
    return Compared(
        step.name,
        plan.placer.name,
        sum(seconds > 0 for seconds in found.busy_seconds),
        timeline.step_seconds,
        timeline.step_seconds / base - 1 if base else 0.0,
        step.profiled.measured.step_seconds if step.profiled is not None else None,
        plan.gap if plan.bounds.step_seconds > 0 else None,
        sum(s.amount for s in found.path.compute) / total,
        found.path.transfer / total,
        found.path.waiting / total,
        max(p.nbytes / caps[p.device].cap for p in found.peaks),
        sum(s.nbytes for s in timeline.transfers),
        sum(plan.device[op] != d for op, d in first.plan.device.items()) if plan.graph == first.plan.graph else None,
    )
