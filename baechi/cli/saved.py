"""A saved plan or profile: whether a file is one, its target, its graph and its step."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baechi.cli.kept import keep_graph, kept_graph
from baechi.cli.output import progress, say
from baechi.cli.subject import measured_table
from baechi.errors import BaechiError

if TYPE_CHECKING:
    from baechi.cli.subject import Subject
    from baechi.cost import CostTable
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan
    from baechi.ir.timeline import Timeline
    from baechi.report.files import Step
    from baechi.target import Target

__all__ = [
    "PlannedStep",
    "is_saved",
    "named_target",
    "planned",
    "planned_step",
    "saved_graph",
    "saved_target",
    "viewed",
]

_SAVED, _HEAD = re.compile(r'\{\s*"schema":\s*"baechi/(plan|profile)/'), 100


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """A plan that is put to use, and what is known of it by simulating it again.

    Attributes:
        plan: as it was saved.
        target: where its graph is from.
        graph: what it places.
        timeline: of its step.
        table: the measured op times in it.
    """

    plan: "Plan"
    target: "Target"
    graph: "Graph"
    timeline: "Timeline"
    table: "CostTable | None"


def is_saved(name: str) -> bool:
    """Whether a name is a file with a plan or a profile, rather than a target."""
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            return _SAVED.match(file.read(_HEAD)) is not None
    except OSError:
        return False


def planned_step(subject: "Subject", graph: "Graph", plan: "Plan") -> PlannedStep:
    """A plan that was just made, with the target of the graph that it is for and what the simulator expects."""
    from baechi.api import timeline_of
    from baechi.passes.lighten import Lighten

    target = subject.target.lightened(Lighten.of(plan.target))
    return PlannedStep(plan, target, graph, timeline_of(graph, plan, subject.table), subject.table)


def planned(path: str, table: str | None = None, *, new_table: bool = False) -> PlannedStep:
    """Read a plan to use it: extract its graph again and simulate the step; says when it now takes another time.

    Args:
        path: of the plan.
        table: the file of measured op times that it was made with; this machine's when None.
        new_table: that file need not be there yet.

    Raises:
        BaechiError: B4xx on a plan that cannot be read or is for another graph; as `saved_target`.
    """
    from baechi.report.files import read_step

    plan, costs = read_step(path).plan, measured_table(table, missing_ok=new_table)
    target = _found_target(path, plan)
    return PlannedStep(plan, target, target.graph, _timeline(target.graph, plan, costs), costs)


def viewed(path: str, table: str | None = None, known: "dict[str, Graph] | None" = None) -> "Step":
    """Read a plan or a profile to look at it, and simulate the step; says when it now takes another time.

    Args:
        path: of the plan.
        table: the file of measured op times that it was made with; this machine's when None.
        known: graphs that were loaded before, by digest; that of the plan is added.

    Raises:
        BaechiError: as `planned`, unless the graph was kept.
    """
    from baechi.report.files import Step, read_step

    saved, costs = read_step(path), measured_table(table)
    plan, known = saved.plan, {} if known is None else known
    if plan.graph not in known:
        known[plan.graph] = saved_graph(path, plan)
    graph = known[plan.graph]
    return Step(path, plan, graph, _timeline(graph, plan, costs), costs, saved.profiled)


def saved_graph(path: str, plan: "Plan") -> "Graph":
    """The graph that the plan in a file is for: as it was kept, else extracted again; errors as `planned`."""
    if (kept := kept_graph(plan.graph)) is not None:
        return kept
    target = _found_target(path, plan)
    keep_graph(target, target.graph)
    return target.graph


def _timeline(graph: "Graph", plan: "Plan", costs: "CostTable | None") -> "Timeline":
    from baechi.api import timeline_of
    from baechi.units import format_seconds

    timeline, before = timeline_of(graph, plan, costs), plan.predicted.step_seconds
    if abs(timeline.step_seconds - before) > 1e-9 * before:
        now = format_seconds(timeline.step_seconds)
        say(f"note: op times changed since the plan was made: it was {format_seconds(before)} then, {now} now")
    return timeline


def _found_target(path: str, plan: "Plan") -> "Target":
    """The target of a plan in a file; what is wrong with it is the file's fault to whoever only names the file."""
    try:
        return saved_target(plan)
    except BaechiError as error:
        if error.code.startswith("B4"):
            raise
        what = f"the graph of {path} cannot be had again: {error.what}"
        raise BaechiError(
            "B410", what, help=error.help or "put back what it was made from, or place it again"
        ) from None


def named_target(plan: "Plan") -> "Target":
    """The target of a plan; nothing is captured or read yet.

    Raises:
        BaechiError: B406 when the plan does not say where its graph is from.
    """
    from baechi.jobs import host_of
    from baechi.passes.lighten import Lighten
    from baechi.target import load_target

    known = plan.target
    text, batch, options, expert = (known.get(k) for k in ("target", "batch", "options", "expert"))
    microbatches, framework = known.get("microbatches", 1), known.get("framework")
    good = isinstance(text, str) and isinstance(batch, int | None) and isinstance(options, dict | None)
    good = good and isinstance(microbatches, int) and isinstance(framework, str | None)
    if not (good and isinstance(expert, str | None)):
        raise BaechiError(
            "B406",
            f"the plan for '{known.get('name', 'graph')}' does not say where its graph is from",
            help="it was made by Python code: use it there, by ModelPlan.pinned()",
        )
    if framework is not None:
        host_of(framework).begin(len(plan.cluster))
    target = load_target(
        str(text),
        batch=batch,
        options=options,
        ignore_colocation=bool(known.get("ignore_colocation")),
        expert=expert,
        microbatches=microbatches,
        framework=framework,
    )
    return target.lightened(Lighten.of(known))


def saved_target(plan: "Plan") -> "Target":
    """The target of a plan, with its graph.

    Raises:
        BaechiError: B402 when it gives another graph, B406 when the plan does not say where its graph is from.
    """
    target = named_target(plan)
    with progress(f"extracting {target.name}"):
        graph = target.graph
    if graph.digest != plan.graph:
        raise BaechiError(
            "B402",
            f"the plan is for another graph than '{target.name}' gives now ({plan.graph}, not {graph.digest})",
            help="the model, its options or the version of its framework changed: place it again",
        )
    return target
