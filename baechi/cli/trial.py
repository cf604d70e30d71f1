"""Try plans of several processes, for what ops take beside others, and keep the better one.

Ops measured in one process do not show it: processes share memory and caches, and what a device sends takes its time.
So some steps are trained as the plan says. Placed again with what the ops took then, another plan may be better, but it
is the best of many by costs that are never exact, and so looks better than it is: it is tried as well, and only where
it promises much.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from baechi.cli.carriers import carrier_of
from baechi.cli.output import say
from baechi.cli.saved import planned_step
from baechi.cli.subject import Subject
from baechi.errors import BaechiError
from baechi.units import format_seconds

if TYPE_CHECKING:
    from baechi.ir.graph import Graph
    from baechi.ir.plan import Plan

__all__ = ["Made", "best_tried"]

_STEPS, _WARMUP = 8, 3
_WORTH = 0.05  # of a step that was tried, what another plan must save to be tried as well


class Made(NamedTuple):
    """A plan, the graph that it is for, and what it was made from."""

    subject: Subject
    graph: "Graph"
    plan: "Plan"


def best_tried(made: Made, again: Callable[[Subject], Made], *, seed: int, table_file: str | None) -> Made:
    """A plan by the op times of a trial, which are kept; as it was, where it is not one of several processes here.

    Args:
        made: with op times of one process.
        again: places with other op times.
        seed: of weights and dropout.
        table_file: where measured op times are kept.
    """
    from baechi.profile.tables import write_table

    best = _tried(made, seed)
    if best is None:
        return made
    other = again(best.subject)
    if other.plan.objective_seconds < (1 - _WORTH) * best.plan.objective_seconds:
        second = _tried(other, seed)
        if second is not None and second.plan.objective_seconds < best.plan.objective_seconds:
            best = second
    assert best.subject.table is not None  # a trial has op times
    write_table(best.subject.table, table_file)
    return best


def _tried(made: Made, seed: int) -> Made | None:
    """The same plan by what its ops took in a trial; None where there is none."""
    from baechi.cost import CostTable, Problem
    from baechi.placers import repriced

    subject, graph, plan = made
    carrier = carrier_of(plan.target.get("framework"))
    if carrier.in_threads or not _is_of_processes_here(plan):
        return None
    options = argparse.Namespace(steps=_STEPS, warmup=_WARMUP, seed=seed)
    try:
        ran = carrier.profile(plan, lambda: planned_step(subject, graph, plan), options)
    except BaechiError as error:
        say(f"note: no trial, so ops have the times that they had: {error.what}")
        return None
    if ran is None:
        return None
    found = ran[1]
    took, expected = found.measured.step_seconds, plan.predicted.step_seconds
    say(f"note: tried for some steps of {format_seconds(took)} where {format_seconds(expected)} was expected")
    table = (subject.table or CostTable()).merged(found.ops)
    plan = repriced(Problem(graph, plan.cluster, table, plan.objective), plan)
    return Made(replace(subject, table=table), graph, plan)


def _is_of_processes_here(plan: "Plan") -> bool:
    used = [plan.cluster.device[name] for name in set(plan.device.values())]
    return len(used) > 1 and all(device.type == "cpu" for device in used)
