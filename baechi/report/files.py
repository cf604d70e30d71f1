"""What a report is made of: a saved plan, or a profile, which is a plan with a measured step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from baechi.cost.problem import Problem
from baechi.cost.table import CostTable
from baechi.document import Entry, load_json
from baechi.ir.graph import Graph
from baechi.ir.json import plan_from_entry, timeline_from_entry
from baechi.ir.plan import PLAN_SCHEMA, Plan, Prediction
from baechi.ir.timeline import OpSpan, Timeline, TransferSpan
from baechi.profile.measured import Measured
from baechi.profile.profiled import PROFILE_SCHEMA, Profiled
from baechi.sim.bounds import bounds
from baechi.sim.load import loads
from baechi.units import to_seconds

__all__ = ["SavedStep", "Step", "read_step"]

_CHANGED = 1e-9  # rounding
_FIELDS = ("schema", "plan", "timeline", "step_seconds", "peak_bytes", "losses", "overhead", "ops")


@dataclass(frozen=True, eq=False)
class SavedStep:
    """What a file holds: a plan, and how a run of it was when it is a profile."""

    plan: Plan
    profiled: Profiled | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """A step that is reported.

    Args:
        name: what to call it, such as its file.
        plan: the plan.
        graph: what the plan places.
        timeline: what `simulate` gives for it.
        table: the measured op times in it.
        profiled: a run of it.
    """

    name: str
    plan: Plan
    graph: Graph
    timeline: Timeline
    table: CostTable | None = None
    profiled: Profiled | None = None

    @cached_property
    def now(self) -> Plan:
        """The plan with what its prediction and bounds are by today's op times, where those changed since it was made."""
        plan, seconds = self.plan, self.timeline.step_seconds
        if abs(seconds - plan.predicted.step_seconds) <= _CHANGED * plan.predicted.step_seconds:
            return plan
        problem = Problem(self.graph, plan.cluster, self.table, plan.objective)
        names = list(plan.cluster.device)
        device = np.array([names.index(plan.device[op.name]) for op in self.graph.ops], np.int64)
        load = {name: to_seconds(ticks) for name, ticks in zip(names, loads(problem.arrays, device), strict=True)}
        predicted = Prediction(seconds, self.timeline.peak_bytes, load)
        return replace(plan, predicted=predicted, bounds=bounds(problem, thorough=False))


def read_step(path: str | Path) -> SavedStep:
    """Read a plan or a profile.

    Raises:
        BaechiError: B401 when it cannot be read, B402 when it is no JSON or cut off, B403 when it is something
            else, B405 on a missing or malformed entry, or one that does not belong to the plan.
    """
    entry = load_json(path, "B405", missing="B401", malformed="B402")
    schema = entry.table().get("schema")
    if schema == PLAN_SCHEMA:
        return SavedStep(plan_from_entry(entry))
    if schema != PROFILE_SCHEMA:
        raise entry.error(
            f'the schema is {json.dumps(schema)}, not "{PLAN_SCHEMA}" or "{PROFILE_SCHEMA}"',
            help="name a file that place -o or profile -o wrote",
            code="B403",
        )
    entry.only(_FIELDS)
    plan = plan_from_entry(entry.at("plan"))
    timeline = timeline_from_entry(entry.at("timeline"))
    _check_ops(entry.at("timeline"), plan, timeline)
    _check_times(entry.at("timeline").at("ops"), timeline.ops)
    _check_times(entry.at("timeline").at("transfers"), timeline.transfers)
    _check_devices(entry.at("timeline").at("memory"), plan)
    _check_devices(entry.at("peak_bytes"), plan)
    for i, span in enumerate(timeline.transfers):
        if not {span.source, span.destination} <= plan.cluster.device.keys():
            raise entry.at("timeline").at("transfers").items()[i].error("it is not between devices of the cluster")
    return SavedStep(plan, _profiled(entry, timeline))


def _profiled(entry: Entry, timeline: Timeline) -> Profiled:
    times = entry.at("step_seconds")
    median = times.at("median")
    if median.number() < 0:
        raise median.expected("a time of at least 0")
    measured = Measured(
        median.number(),
        tuple(seconds.number() for seconds in times.at("all").items()),
        times.at("spread").number(),
        tuple(loss.number() for loss in entry.at("losses").items()),
        {device: peak.integer() for device, peak in entry.at("peak_bytes").entries()},
    )
    ops = {kind: {key: e.number() for key, e in found.entries()} for kind, found in entry.at("ops").entries()}
    return Profiled(measured, timeline, entry.at("overhead").number(), ops)


def _check_ops(entry: Entry, plan: Plan, timeline: Timeline) -> None:
    """A measured step runs all ops of the plan, each on the plan's device."""
    for i, span in enumerate(timeline.ops):
        if plan.device.get(span.op) != span.device:
            raise entry.at("ops").items()[i].error(f"the plan has no op '{span.op}' on '{span.device}'")
    if len(timeline.span) != len(plan.device):
        missing = next(op for op in plan.device if op not in timeline.span)
        raise entry.at("ops").error(f"op '{missing}' of the plan did not run")


def _check_times(entry: Entry, spans: Sequence[OpSpan] | Sequence[TransferSpan]) -> None:
    for i, span in enumerate((*spans,)):
        if not 0 <= span.start <= span.end:
            raise entry.items()[i].error(f"it lasts from {span.start} to {span.end} s")


def _check_devices(entry: Entry, plan: Plan) -> None:
    for name, child in entry.entries():
        if name not in plan.cluster.device:
            raise child.error(
                f"'{name}' is no device of the cluster", help="devices: " + ", ".join(plan.cluster.device)
            )
