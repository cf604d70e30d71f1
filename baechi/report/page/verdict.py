"""The first thing to read: what limits a step, and what would help."""

from collections.abc import Iterator, Sequence

from baechi.report.explanation import Explanation
from baechi.report.files import Step
from baechi.report.layout import percent
from baechi.report.page.whatif import WhatIf
from baechi.units import format_bytes, format_seconds

__all__ = ["verdict"]

_WORTH = 0.02  # a change of less is not worth a sentence
_CHANGED = 0.005  # what a step is now, against what it was when planned
_NEAR = 0.05  # of the bound
_FULL = 0.9


def verdict(step: Step, explanation: Explanation, changes: Sequence[WhatIf]) -> tuple[str, ...]:
    """Sentences: how long, why, how near to what is possible, what would help, what is nearly full.

    Example:
        >>> from baechi.api import place_graph, timeline_of
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.models.graphs import figure_2
        >>> from baechi.report.explanation import explain
        >>> graph, cluster = figure_2(), Cluster((Device("d:0", 1),))
        >>> plan = place_graph(graph, cluster, "single")
        >>> step = Step("a", plan, graph, timeline_of(graph, plan))
        >>> verdict(step, explain(graph, plan, step.timeline), ())[0]
        'A step takes 20.0 s, and computing on d:0 limits it: that is 100% of its critical path.'
    """
    now = (_limit(step, explanation), *_load(step), *_run(step), *_bound(step))
    return (*now, *_help(step, changes), *_memory(step, explanation, changes))


def _limit(step: Step, explanation: Explanation) -> str:
    seconds, path = explanation.step_seconds, explanation.path
    if seconds <= 0:
        return "A step takes no time: no op of the graph has a cost."
    taking = f"A step takes {format_seconds(seconds)}, and"
    computing = sum(s.amount for s in path.compute)
    if path.transfer >= max(computing, path.waiting):
        longest = path.transfers[0]
        share, where = percent(path.transfer / seconds), f"{longest.source} to {longest.destination}"
        return f"{taking} transfers limit it: they are {share} of its critical path, the longest from {where}."
    if path.waiting > computing:
        share = percent(path.waiting / seconds)
        return f"{taking} waiting limits it: in {share} of it nothing runs that the rest waits for."
    most = max(path.compute, key=lambda s: s.amount)
    share = percent(most.amount / seconds)
    if most.amount >= 0.7 * computing:
        return f"{taking} computing on {most.name} limits it: that is {share} of its critical path."
    whole = percent(computing / seconds)
    return f"{taking} computing limits it: that is {whole} of its critical path, the most on {most.name} ({share})."


def _load(step: Step) -> Iterator[str]:
    loads = step.now.predicted.load_seconds
    if step.plan.objective == "throughput" and loads:
        most = max(loads, key=lambda name: loads[name])
        yield f"When many follow each other, each takes {format_seconds(loads[most])}: the load of {most}."


def _run(step: Step) -> Iterator[str]:
    before = step.plan.predicted.step_seconds
    if abs(step.timeline.step_seconds - before) > _CHANGED * before:
        yield f"When it was planned, the op times of then gave {format_seconds(before)}."
    if step.profiled is None or step.timeline.step_seconds <= 0:
        return
    median, expected = step.profiled.measured.step_seconds, step.timeline.step_seconds
    more = percent(abs(median / expected - 1)) + (" more" if median >= expected else " less")
    yield f"Measured, it took {format_seconds(median)}, {more} than the {format_seconds(expected)}."


def _bound(step: Step) -> Iterator[str]:
    plan = step.now
    bound = plan.bounds.step_seconds
    if bound <= 0:
        return
    what = "step" if plan.objective == "latency" else "load of a device"
    if plan.gap < 5e-4:
        yield f"No plan on these devices has a shorter {what}: the {plan.bounds.best} alone takes as long."
    else:
        yield (
            f"No plan on these devices can have a {what} below {format_seconds(bound)}, for that is what the "
            f"{plan.bounds.best} takes; this one is {percent(plan.gap)} above."
        )


def _help(step: Step, changes: Sequence[WhatIf]) -> Iterator[str]:
    """What to do: another plan first, which costs nothing, and then what money buys."""
    fitting = sorted((c for c in changes if c.over_bytes == 0), key=lambda c: c.seconds)
    other = next((c for c in fitting if c.kind == "plan" and c.ratio < -_WORTH), None)
    bought = next((c for c in fitting if c.kind != "plan" and c.ratio < -_WORTH), None)
    if other is not None:
        yield f"Placing it with {other.plan} would help: {format_seconds(other.seconds)}, {_less(other)}."
    elif step.now.gap > _NEAR and step.plan.placer.name not in ("auto", "exact"):
        yield "A search may find a better plan: place it with auto."
    elif step.now.gap > _NEAR:
        yield "A longer search may find a better plan: place it with --budget 60s."
    if bought is not None:
        yield f"Of the changes below, {bought.change} would help most: {format_seconds(bought.seconds)}, {_less(bought)}."
    elif other is None and step.now.gap <= _NEAR:
        yield "None of the changes below would help much."


def _less(change: WhatIf) -> str:
    return f"{percent(-change.ratio)} less"


def _memory(step: Step, explanation: Explanation, changes: Sequence[WhatIf]) -> Iterator[str]:
    fullest = max(explanation.peaks, key=lambda p: p.nbytes / step.plan.cluster.device[p.device].cap)
    cap = step.plan.cluster.device[fullest.device].cap
    share = fullest.nbytes / cap
    if share >= _FULL:
        helps = any(c.kind == "memory" and c.ratio < -_WORTH for c in changes)
        more = "; with more memory there is a shorter step" if helps else ""
        yield f"{fullest.device} is nearly full: {format_bytes(fullest.nbytes)} of {format_bytes(cap)}{more}."
