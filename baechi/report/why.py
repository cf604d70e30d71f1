"""Why one op is where it is: what it waits for, and what every other device would have cost."""

from dataclasses import dataclass

import numpy as np

from baechi.cost.problem import Problem
from baechi.cost.table import CostTable
from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.op import Op
from baechi.ir.plan import Plan
from baechi.ir.timeline import OpSpan, Timeline
from baechi.report.layout import clip, fields, table
from baechi.sim.critical import Span, critical_path, waits_of
from baechi.sim.evaluate import Schedule, judge
from baechi.units import format_bytes, format_seconds, to_seconds

__all__ = ["Elsewhere", "Why", "find_op", "why", "why_text"]

_MOST_WAITS = 5


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The plan with the op's group on another device, all else as it is.

    Attributes:
        device: the other one.
        objective_seconds: the step, or the highest load.
        over_bytes: by how much devices would be over their caps, summed.
    """

    device: str
    objective_seconds: float
    over_bytes: int


@dataclass(frozen=True, slots=True)
class Why:
    """What there is to say of an op.

    Attributes:
        op: itself.
        span: when and where it runs.
        together: how many ops its colocation group keeps on one device, itself included.
        is_critical: whether it is on the critical path.
        waits: what it waits for, the last to end first.
        elsewhere: each other device, in the cluster's order.
        objective_seconds: of the plan as it is.
    """

    op: Op
    span: OpSpan
    together: int
    is_critical: bool
    waits: tuple[Span, ...]
    elsewhere: tuple[Elsewhere, ...]
    objective_seconds: float


def find_op(graph: Graph, name: str) -> Op:
    """An op by its name.

    Raises:
        BaechiError: B409 when there is none, with names that are like it.
    """
    if name in graph.op:
        return graph.op[name]
    near = [op.name for op in graph.ops if name in (op.module, op.source) or name in op.name][:_MOST_WAITS]
    help_ = "there are " + ", ".join(f"'{n}'" for n in near) if near else "baechi graph PLAN lists all"
    raise BaechiError("B409", f"the graph has no op '{name}'", help=help_)


def why(graph: Graph, plan: Plan, timeline: Timeline, name: str, table: CostTable | None = None) -> Why:
    """Look at one op of a plan.

    Args:
        graph: what the plan places.
        plan: the plan.
        timeline: what `simulate` gives for it.
        name: of the op.
        table: measured op times.

    Raises:
        BaechiError: B409 when there is no such op.
    """
    op = find_op(graph, name)
    problem = Problem(graph, plan.cluster, table, plan.objective)
    critical = {s.op for s in critical_path(graph, timeline) if isinstance(s, OpSpan)}
    return Why(
        op,
        timeline.span[name],
        len(graph.groups[graph.group_of(op)]),
        name in critical,
        waits_of(graph, timeline, name),
        _elsewhere(problem, plan, timeline, op),
        plan.objective_seconds,
    )


def _elsewhere(problem: Problem, plan: Plan, timeline: Timeline, op: Op) -> tuple[Elsewhere, ...]:
    """Ops keep the turns in which they start now; of transfers, what is read first is sent first."""
    a, ops = problem.arrays, problem.graph.ops
    names = [device.name for device in problem.cluster.devices]
    device = np.array([names.index(plan.device[other.name]) for other in ops], np.int64)
    sequence = np.lexsort((a.rank, np.array([timeline.span[other.name].start for other in ops])))
    group = a.group == a.group[ops.index(op)]
    found = []
    for d, name in enumerate(names):
        if name != plan.device[op.name]:
            over, ticks = judge(a, Schedule(np.where(group, d, device), sequence)).score
            found.append(Elsewhere(name, to_seconds(ticks), over))
    return tuple(found)


def why_text(top: str, it: Why) -> str:
    """The same as a person reads it; `top` is the headline."""
    op, span = it.op, it.span
    alone = it.together == 1
    facts = [
        ("op", f"{op.name} ({op.kind}, {op.phase})"),
        *([("module", op.module)] if op.module else []),
        *([("source", op.source)] if op.source else []),
        ("device", span.device + ("" if alone else f", with the {it.together:,} ops of group '{op.group}'")),
        ("runs", f"{format_seconds(span.start)} to {format_seconds(span.end)}" + ", critical" * it.is_critical),
        ("waits for", _waited(it)),
    ]
    rows = [("on", "step", "", "memory")]
    rows.append((span.device, format_seconds(it.objective_seconds), "as planned", "fits"))
    for other in it.elsewhere:
        fits = f"{format_bytes(other.over_bytes)} over" if other.over_bytes else "fits"
        more = other.objective_seconds - it.objective_seconds
        sign = "+" if more >= 0 else "-"
        rows.append((other.device, format_seconds(other.objective_seconds), sign + format_seconds(abs(more)), fits))
    what = "The op" if alone else "The group"
    lines = [top, "", *fields(facts), "", f"{what} elsewhere, all else as planned", *table(rows, "<>><")]
    if it.waits:
        lines += ["", "It waits for", *_waits(it)]
    return "\n".join(lines) + "\n"


def _waited(it: Why) -> str:
    """The last thing, and how long the device then stands idle."""
    if not it.waits:
        return "nothing"
    last = it.waits[0]
    what = f"{last.op} on {last.device}" if isinstance(last, OpSpan) else f"{last.tensor} from {last.source}"
    return f"{what}, until {format_seconds(last.end)}"


def _waits(it: Why) -> list[str]:
    rows = [("until", "what", "where", "takes")]
    for span in it.waits[:_MOST_WAITS]:
        takes = format_seconds(span.end - span.start)
        if isinstance(span, OpSpan):
            rows.append((format_seconds(span.end), clip(span.op, 40), span.device, takes))
        else:
            where = f"{span.source} to {span.destination}"
            rows.append((format_seconds(span.end), clip(span.tensor, 29) + " (transfer)", where, takes))
    return table(rows, "><<>")
