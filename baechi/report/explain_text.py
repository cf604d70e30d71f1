"""An explanation and an estimate as a person reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.report.explanation import Categories, Explanation, Share, held_by_module, sentence
from baechi.report.layout import bar, clip, fields, percent, table, tail, wrap
from baechi.sim.holders import Peak
from baechi.units import format_bytes, format_count, format_seconds

__all__ = ["DeviceEstimate", "Estimate", "estimate_text", "explain_text"]

_MOST = 5


def explain_text(graph: Graph, plan: Plan, top: str, explanation: Explanation) -> str:
    """Why a plan is as it is; `top` is the headline."""
    lines = [top, "", *wrap(sentence(plan, explanation))]
    lines += ["", "Critical path", *_path(explanation)]
    if explanation.path.ops:
        lines += ["", "Its longest ops", *_longest(graph, explanation)]
    lines += ["", "Devices", *_devices(plan, explanation)]
    for peak in explanation.peaks:
        if peak.nbytes:
            lines += ["", *_holders(graph, peak)]
    if explanation.transfers:
        lines += ["", "Largest transfers", *_transfers(explanation)]
    return "\n".join(lines) + "\n"


def _path(explanation: Explanation) -> list[str]:
    step, path = explanation.step_seconds, explanation.path
    parts = [Share(f"computing on {s.name}", s.amount) for s in path.compute]
    parts += [Share("transfers", path.transfer), Share("waiting", path.waiting)]
    rows = [("", "", "", "")]
    for part in (p for p in parts if p.amount):
        share = part.amount / step if step else 0.0
        rows.append((clip(part.name, 30), format_seconds(part.amount), percent(share), bar(share)))
    return table(rows, "<>><")[1:]


def _longest(graph: Graph, explanation: Explanation) -> list[str]:
    rows = [("time", "device", "op", "module", "source")]
    for span in explanation.path.ops[:_MOST]:
        op = graph.op[span.op]
        module = op.module or (op.group or "").removeprefix("p:")  # an update is for a parameter
        names = clip(span.device, 10), clip(op.name, 18), clip(module, 18), tail(op.source, 22)
        rows.append((format_seconds(span.end - span.start), *names))
    return table(rows, "><<<<")


def _devices(plan: Plan, explanation: Explanation) -> list[str]:
    step = explanation.step_seconds
    rows = [("device", "busy", "peak", "of cap", "", "at", "while")]
    for peak, busy in zip(explanation.peaks, explanation.busy_seconds, strict=True):
        share = peak.nbytes / plan.cluster.device[peak.device].cap
        row = (clip(peak.device, 10), percent(busy / step) if step else "-", format_bytes(peak.nbytes), percent(share))
        rows.append((*row, bar(share, 12), format_seconds(peak.seconds), clip(peak.running or "-", 20)))
    return table(rows, "<>>><><")


def _holders(graph: Graph, peak: Peak) -> list[str]:
    kinds = sorted(Categories(graph).sums(peak), key=lambda s: -s.amount)
    shown = ", ".join(f"{s.name} {format_bytes(s.amount)} ({percent(s.amount / peak.nbytes)})" for s in kinds)
    lines = [f"Who holds the {format_bytes(peak.nbytes)} on {peak.device}"]
    lines += wrap(shown, indent="  ")
    rows = [
        ("", format_bytes(s.amount), percent(s.amount / peak.nbytes), clip(s.name, 50))
        for s in held_by_module(graph, peak)[:_MOST]
    ]
    return lines + table(rows, "<>><")


def _transfers(explanation: Explanation) -> list[str]:
    rows = [("size", "time", "from", "to", "tensor")]
    for span in explanation.transfers[:_MOST]:
        ends = clip(span.source, 10), clip(span.destination, 10)
        rows.append((format_bytes(span.nbytes), format_seconds(span.end - span.start), *ends, clip(span.tensor, 34)))
    return table(rows, ">><<<")


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """One step on one device: whether its memory is enough, and its time by the roofline."""

    name: str
    title: str
    memory_bytes: int | None
    fits: bool
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step needs.

    Attributes:
        parameters: elements of all parameters.
        flops: floating point operations by phase.
        peak_bytes: memory on one device.
        memory: what it is made of.
        devices: the step on each.
    """

    parameters: int
    flops: tuple[Share, ...]
    peak_bytes: int
    memory: tuple[Share, ...]
    devices: tuple[DeviceEstimate, ...]


def estimate_text(top: str, estimate: Estimate) -> str:
    """What a step needs; `top` is the headline."""
    total = sum(s.amount for s in estimate.flops)
    split = ", ".join(f"{s.name} {format_count(s.amount)}" for s in estimate.flops)
    facts = [("memory", f"{format_bytes(estimate.peak_bytes)} at the peak, on one device")]
    if estimate.parameters:
        facts.append(("parameters", format_count(estimate.parameters)))
    if total:
        facts.append(("operations", f"{format_count(total)}FLOP a step: {split}"))
    return "\n".join([top, "", *fields(facts), "", *_kinds(estimate), "", *_fitting(estimate.devices)]) + "\n"


def _kinds(estimate: Estimate) -> list[str]:
    rows = [("at the peak", "bytes", "share", "")]
    for s in estimate.memory:
        share = s.amount / estimate.peak_bytes
        rows.append((s.name, format_bytes(s.amount), percent(share), bar(share)))
    return table(rows, "<>><")


def _fitting(devices: Sequence[DeviceEstimate]) -> list[str]:
    rows = [("device", "", "memory", "fits", "step (roofline)")]
    for d in devices:
        memory = "-" if d.memory_bytes is None else format_bytes(d.memory_bytes)
        title = clip(d.title, 24)
        rows.append((clip(d.name, 18), title, memory, "yes" if d.fits else "no", format_seconds(d.step_seconds)))
    return table(rows, "<<><>")
