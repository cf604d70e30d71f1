"""A profile as a person reads it."""

import statistics

from baechi.ir.graph import Graph
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline
from baechi.profile.profiled import Profiled
from baechi.report.difference import Difference, differences, worst_ops
from baechi.report.layout import clip, fields, percent, table
from baechi.report.text import head
from baechi.units import format_bytes, format_seconds

__all__ = ["profile_text"]

_KINDS, _OPS, _OUTLIERS = 8, 5, 5


def profile_text(graph: Graph, plan: Plan, predicted: Timeline, found: Profiled) -> str:
    """Measured beside predicted: the step, memory, and the time of ops by device, phase and kind.

    Args:
        graph: of the plan.
        plan: that was run.
        predicted: what the simulator expects of it.
        found: what was measured.
    """
    lines = [head(graph, plan.cluster), "", *fields(_facts(predicted, found)), "", *_devices(plan, predicted, found)]
    named = (
        ("device", differences(graph, predicted, found.timeline, lambda op: plan.device[op.name])),
        ("phase", differences(graph, predicted, found.timeline, lambda op: op.phase)),
        ("kind of op", differences(graph, predicted, found.timeline, lambda op: op.kind)[:_KINDS]),
        ("op", worst_ops(graph, predicted, found.timeline, _OPS)),
    )
    for what, rows in named:
        lines += ["", *_table(what, rows)]
    return "\n".join(lines) + "\n"


def _facts(predicted: Timeline, found: Profiled) -> list[tuple[str, str]]:
    seconds, median = found.measured.all_seconds, found.measured.step_seconds
    ratio = f", {median / predicted.step_seconds:.3f} x the prediction" if predicted.step_seconds else ""
    low, high = format_seconds(min(seconds)), format_seconds(max(seconds))
    spread = percent(found.measured.spread)
    facts = [
        ("step", f"{format_seconds(median)}{ratio} of {format_seconds(predicted.step_seconds)}"),
        ("steps", f"{len(seconds)}, from {low} to {high}, quartiles {spread} apart"),
        ("noting", f"{found.overhead:+.1%} of the step"),
        ("transfers", _transfers(found.timeline)),
    ]
    if found.outliers:
        far = ", ".join(f"step {i + 1} {format_seconds(seconds[i])}" for i in found.outliers[:_OUTLIERS])
        facts.insert(2, ("outliers", far))
    return facts


def _transfers(step: Timeline) -> str:
    if not step.transfers:
        return "none"
    times = [s.end - s.start for s in step.transfers]
    longest = format_seconds(max(times))
    return f"{len(times):,}, median {format_seconds(statistics.median(times))}, longest {longest}, until seen"


def _devices(plan: Plan, predicted: Timeline, found: Profiled) -> list[str]:
    rows = [("device", "busy", "predicted", "peak", "predicted", "ratio", "cap")]
    length, expected = found.timeline.step_seconds, predicted.step_seconds
    for device in plan.cluster.devices:
        name = device.name
        busy = found.timeline.busy_seconds.get(name, 0.0) / length if length else 0.0
        planned = predicted.busy_seconds.get(name, 0.0) / expected if expected else 0.0
        peak, meant = found.measured.peak_bytes.get(name, 0), plan.predicted.peak_bytes.get(name, 0)
        memory = (format_bytes(peak), format_bytes(meant), f"{peak / meant:.3f}" if meant else "-")
        rows.append((clip(name, 14), percent(busy), percent(planned), *memory, format_bytes(device.cap)))
    return table(rows, "<>>>>>>")


def _table(what: str, rows: tuple[Difference, ...]) -> list[str]:
    shown = [(what, "ops", "measured", "predicted", "ratio")]
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        times = format_seconds(row.measured), format_seconds(row.predicted)
        shown.append((clip(row.name, 36), f"{row.count:,}", *times, ratio))
    return table(shown, "<>>>>")
