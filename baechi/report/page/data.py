"""Work out what a page says."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from baechi.ir.cluster import UNLIMITED_BYTES
from baechi.ir.graph import Graph
from baechi.ir.timeline import OpSpan, TransferSpan
from baechi.report.explanation import Categories, Explanation, Share, explain, held_by_module
from baechi.report.facts import count_ops, parameter_count, traffic_of
from baechi.report.files import Step
from baechi.report.page.beside import beside
from baechi.report.page.coarse import drawing
from baechi.report.page.records import Compared, DeviceRow, Fact, HeldRow, Hop, Page, PeakRow, StepPage
from baechi.report.page.verdict import verdict
from baechi.report.page.whatif import what_if
from baechi.report.text import head
from baechi.sim.holders import Peak

__all__ = ["REPORT_SCHEMA", "page_of", "page_to_dict"]

REPORT_SCHEMA = "baechi/report/1"
_MOST_HOPS, _MOST_HELD = 20, 12


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
    changes, left_out = what_if(step)
    path = [Share(f"computing on {s.name}", s.amount) for s in found.path.compute]
    return StepPage(
        step.name,
        head(graph, plan.cluster),
        verdict(step, found, changes),
        _facts(step),
        _devices(step),
        (*path, Share("transfers", found.path.transfer), Share("waiting", found.path.waiting)),
        _hops(graph, found),
        tuple(Share(name, seconds) for name, seconds in step.now.bounds.proofs.items()),
        plan.objective,
        step.now.objective_seconds,
        step.now.gap,
        tuple(_peak(graph, peak) for peak in found.peaks),
        traffic_of(step.timeline),
        changes,
        left_out,
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
    spans: list[OpSpan | TransferSpan] = sorted((*found.path.ops, *found.path.transfers), key=lambda s: s.start - s.end)
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
        step.now.gap if step.now.bounds.step_seconds > 0 else None,
        sum(s.amount for s in found.path.compute) / total,
        found.path.transfer / total,
        found.path.waiting / total,
        max(p.nbytes / caps[p.device].cap for p in found.peaks),
        sum(s.nbytes for s in timeline.transfers),
        sum(plan.device[op] != d for op, d in first.plan.device.items()) if plan.graph == first.plan.graph else None,
    )
