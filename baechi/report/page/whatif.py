"""What a step would take on other devices, or placed by somebody else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from baechi.cost.problem import Problem
from baechi.ir.cluster import Cluster
from baechi.placers.whatif import Tried, best_quick, left_out, try_quick
from baechi.report.files import Step
from baechi.sim.whatif import Outcome, SamePlan

__all__ = ["Changes", "WhatIf", "what_if"]

_LINKS = (2, 10)
_COMPUTE = 2
_CAPS = 1.5
_SAME = "the same plan"

Kind = Literal["links", "devices", "memory", "plan"]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One change, and what it is worth.

    Attributes:
        change: what is different.
        plan: whose plan it is then.
        seconds: of the objective.
        over_bytes: by how much that plan is over the caps, summed; 0 when it fits.
        ratio: `seconds` over that of the plan as it is, less 1.
        kind: what changes.
    """

    change: str
    plan: str
    seconds: float
    over_bytes: int
    ratio: float
    kind: Kind = "devices"


class Changes(NamedTuple):
    """Changes that were tried, and the placers that were not asked because the graph is too large for them to be quick."""

    tried: tuple[WhatIf, ...]
    left_out: tuple[str, ...]


def what_if(step: Step) -> Changes:
    """Faster links and devices under the same plan; one device fewer, larger caps and other placers with plans of quick placers."""
    plan = step.plan
    problem = Problem(step.graph, plan.cluster, step.table, plan.objective)
    same = SamePlan(problem, plan)
    base = same.with_faster_links(1.0)
    tried = tuple(
        WhatIf(change, whose, o.objective_seconds, o.over_bytes, _ratio(o, base), kind)
        for change, whose, o, kind in _rows(step, problem, same, base)
    )
    return Changes(tried, left_out(problem))


def _ratio(outcome: Outcome, base: Outcome) -> float:
    return outcome.objective_seconds / base.objective_seconds - 1 if base.objective_seconds > 0 else 0.0


def _rows(step: Step, problem: Problem, same: SamePlan, base: Outcome) -> Iterator[tuple[str, str, Outcome, Kind]]:
    plan, cluster = step.plan, step.plan.cluster
    if step.timeline.transfers:
        for factor in _LINKS:
            yield f"links {factor}x faster", _SAME, same.with_faster_links(factor), "links"
    busy = step.timeline.busy_seconds
    busiest = max(cluster.device, key=lambda name: busy.get(name, 0.0))
    change = f"computing {_COMPUTE}x faster on"
    yield f"{change} {busiest}", _SAME, same.with_faster_device(busiest, _COMPUTE), "devices"
    if len(cluster) > 1:
        yield f"{change} all devices", _SAME, same.with_faster_device(None, _COMPUTE), "devices"
    now = try_quick(problem, plan.seed)
    yield f"memory caps {_CAPS:g}x larger", *_larger_caps(problem, now, base), "memory"
    if len(cluster) > 1:
        least = min(reversed(cluster.device), key=lambda name: busy.get(name, 0.0))
        yield f"without {least}", *_without(step, least, base), "devices"
    for tried in now:
        yield f"placed by {tried.placer}", tried.placer, tried.outcome, "plan"


def _larger_caps(problem: Problem, now: Sequence[Tried], base: Outcome) -> tuple[str, Outcome]:
    """What larger caps allow: a plan that is better than the one we have, and than what needs no larger caps."""
    tried = best_quick(problem.with_caps((problem.arrays.cap * _CAPS).astype(np.int64)), 0)
    fitting = [base, *(t.outcome for t in now if t.outcome.over_bytes == 0)]
    placer, outcome = _better(tried.placer, tried.outcome, min(fitting, key=lambda o: o.objective_seconds))
    return (placer, outcome) if placer == tried.placer else (_SAME, base)


def _without(step: Step, device: str, base: Outcome) -> tuple[str, Outcome]:
    smaller = _less(step.plan.cluster, device)
    tried = best_quick(Problem(step.graph, smaller, step.table, step.plan.objective), step.plan.seed)
    if step.plan.order.get(device):
        return tried.placer, tried.outcome
    return _better(tried.placer, tried.outcome, base)


def _better(placer: str, outcome: Outcome, base: Outcome) -> tuple[str, Outcome]:
    """The plan as it is still fits; what quick placers find counts only when it is better."""
    if outcome.over_bytes == 0 and outcome.objective_seconds < base.objective_seconds:
        return placer, outcome
    return _SAME, base


def _less(cluster: Cluster, device: str) -> Cluster:
    kept = tuple(d for d in cluster.devices if d.name != device)
    return replace(cluster, devices=kept, links={pair: x for pair, x in cluster.links.items() if device not in pair})
