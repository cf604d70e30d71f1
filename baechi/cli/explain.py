"""Say why a plan takes as long, and as much memory, as it does; or why one op is where it is."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baechi.cli.output import emit, emit_json
from baechi.cli.saved import viewed

if TYPE_CHECKING:
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan
    from baechi.ir.timeline import TransferSpan
    from baechi.report.explanation import Explanation
    from baechi.report.files import Step
    from baechi.report.why import Why
    from baechi.sim.critical import Span
    from baechi.sim.holders import Peak

__all__ = ["configure", "execute"]

_MOST_MODULES, _MOST_HOLDERS, _MOST_SPANS = 20, 20, 50


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("plan", metavar="PLAN", help="a file that place -o wrote")
    parser.add_argument("op", metavar="OP", nargs="?", help="say why this one is where it is")
    parser.add_argument("--table", metavar="FILE", help="the measured op times that it was made with")


def execute(args: argparse.Namespace) -> int:
    """Extract the graph again, simulate the plan, and look into it."""
    from baechi.report.explain_text import explain_text
    from baechi.report.explanation import explain
    from baechi.report.text import head

    step = viewed(args.plan, args.table)
    graph, plan, timeline = step.graph, step.now, step.timeline
    if args.op:
        return _explain_op(step, args)
    explanation = explain(graph, plan, timeline)
    if args.json:
        emit_json(_to_dict(graph, plan, explanation))
    else:
        emit(explain_text(graph, plan, head(graph, plan.cluster), explanation))
    return 0


def _explain_op(step: "Step", args: argparse.Namespace) -> int:
    from baechi.report.text import head
    from baechi.report.why import why, why_text

    found = why(step.graph, step.now, step.timeline, args.op, step.table)
    if args.json:
        emit_json(_why_dict(step.graph, found))
    else:
        emit(why_text(head(step.graph, step.plan.cluster), found))
    return 0


def _why_dict(graph: "Graph", found: "Why") -> dict[str, Any]:
    return {
        "schema": "baechi/explain-op/1",
        **_op(graph, found.op.name, found.span.device, found.span.end - found.span.start),
        "start_seconds": found.span.start,
        "group": found.op.group,
        "group_ops": found.together,
        "critical": found.is_critical,
        "waits": [_waited(graph, span) for span in found.waits],
        "objective_seconds": found.objective_seconds,
        "elsewhere": [asdict(other) for other in found.elsewhere],
    }


def _waited(graph: "Graph", span: "Span") -> dict[str, Any]:
    from baechi.ir.timeline import OpSpan

    kept = {"end_seconds": span.end}
    if isinstance(span, OpSpan):
        return {**_op(graph, span.op, span.device, span.end - span.start), **kept}
    return {**_transfer(span), **kept}


def _to_dict(graph: "Graph", plan: "Plan", explanation: "Explanation") -> dict[str, Any]:
    from baechi.report.explanation import sentence

    path, bound = explanation.path, plan.bounds
    return {
        "schema": "baechi/explain/1",
        "graph": {"digest": plan.graph, "target": dict(plan.target)},
        "sentence": sentence(plan, explanation),
        "step_seconds": explanation.step_seconds,
        "bounds": bound.to_dict(),
        "critical_path": {
            "compute_seconds": {s.name: s.amount for s in path.compute},
            "transfer_seconds": path.transfer,
            "waiting_seconds": path.waiting,
            "ops": [_op(graph, s.op, s.device, s.end - s.start) for s in path.ops[:_MOST_SPANS]],
            "transfers": [_transfer(s) for s in path.transfers[:_MOST_SPANS]],
        },
        "devices": [
            {"busy_seconds": busy, **_peak(graph, plan, peak)}
            for peak, busy in zip(explanation.peaks, explanation.busy_seconds, strict=True)
        ],
        "transfers": [_transfer(s) for s in explanation.transfers[:_MOST_SPANS]],
    }


def _op(graph: "Graph", name: str, device: str, seconds: float) -> dict[str, Any]:
    op = graph.op[name]
    return {
        "op": name,
        "kind": op.kind,
        "device": device,
        "seconds": seconds,
        "module": op.module,
        "source": op.source,
    }


def _transfer(span: "TransferSpan") -> dict[str, Any]:
    return {
        "tensor": span.tensor,
        "source": span.source,
        "destination": span.destination,
        "nbytes": span.nbytes,
        "seconds": span.end - span.start,
    }


def _peak(graph: "Graph", plan: "Plan", peak: "Peak") -> dict[str, Any]:
    from baechi.report.explanation import Categories, held_by_module

    return {
        "device": peak.device,
        "cap_bytes": plan.cluster.device[peak.device].cap,
        "peak_bytes": peak.nbytes,
        "peak_seconds": peak.seconds,
        "running": peak.running,
        "by_kind": {s.name: int(s.amount) for s in Categories(graph).sums(peak)},
        "by_module": {s.name: int(s.amount) for s in held_by_module(graph, peak)[:_MOST_MODULES]},
        "holders": [
            {"kind": h.kind, "op": h.op, "tensor": h.tensor, "nbytes": h.nbytes} for h in peak.holders[:_MOST_HOLDERS]
        ],
    }
