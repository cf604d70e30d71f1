"""What a report is made of: a saved plan, or a profile, which is a plan with a measured step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from baechi.cost.table import CostTable
from baechi.document import Entry, load_json
from baechi.ir.graph import Graph
from baechi.ir.json import plan_from_entry, timeline_from_entry
from baechi.ir.plan import PLAN_SCHEMA, Plan
from baechi.ir.timeline import Timeline

__all__ = ["PROFILE_SCHEMA", "Measured", "SavedStep", "Step", "StepTimes", "read_step"]

PROFILE_SCHEMA = "baechi/profile/1"

_FIELDS = ("schema", "plan", "timeline", "step_seconds", "peak_bytes", "losses", "overhead", "ops")


@dataclass(frozen=True, slots=True)
class StepTimes:
    """How long steps took, in seconds.

    Attributes:
        median: of all.
        spread: between the quartiles, or what the profiler says it is.
        all: of each step, in their order.
    """

    median: float
    spread: float = 0.0
    all: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Measured:
    """What a profiled run of a plan was like.

    Args:
        timeline: of one step, by the clocks of the devices.
        step: the time of each step.
        peak_bytes: highest memory by device.
        losses: of each step.
        overhead: what profiling added to a step, as a fraction of it.
        ops: seconds by `Op.key`.
    """

    timeline: Timeline
    step: StepTimes
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    overhead: float = 0.0
    ops: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SavedStep:
    """What a file holds: a plan, and how a run of it was when it is a profile."""

    plan: Plan
    measured: Measured | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """A step that is reported.

    Args:
        name: what to call it, such as its file.
        plan: the plan.
        graph: what the plan places.
        timeline: what `simulate` gives for it.
        table: the measured op times in it.
        measured: a run of it.
    """

    name: str
    plan: Plan
    graph: Graph
    timeline: Timeline
    table: CostTable | None = None
    measured: Measured | None = None


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
            help="a file that place -o or profile -o wrote is needed",
            code="B403",
        )
    entry.only(_FIELDS)
    plan = plan_from_entry(entry.at("plan"))
    timeline = timeline_from_entry(entry.at("timeline"))
    _check_spans(entry.at("timeline"), plan, timeline)
    return SavedStep(plan, _measured(entry, plan, timeline))


def _measured(entry: Entry, plan: Plan, timeline: Timeline) -> Measured:
    losses, overhead, ops = entry.find("losses"), entry.find("overhead"), entry.find("ops")
    peaks = {name: peak.integer() for name, peak in entry.at("peak_bytes").entries()}
    for name in peaks:
        _check_device(entry.at("peak_bytes"), plan, name)
    return Measured(
        timeline,
        _times(entry.at("step_seconds")),
        peaks,
        tuple(loss.number() for loss in losses.items()) if losses else (),
        overhead.number() if overhead else 0.0,
        {key: seconds.number() for key, seconds in ops.entries()} if ops else {},
    )


def _times(entry: Entry) -> StepTimes:
    spread, every = entry.find("spread"), entry.find("all")
    median = entry.at("median")
    if median.number() < 0:
        raise median.expected("a time of at least 0")
    return StepTimes(
        median.number(), spread.number() if spread else 0.0, tuple(e.number() for e in every.items()) if every else ()
    )


def _check_spans(entry: Entry, plan: Plan, timeline: Timeline) -> None:
    """A measured step runs the plan's ops on the plan's devices, and nothing ends before it starts."""
    for i, op in enumerate(timeline.ops):
        if plan.device.get(op.op) != op.device:
            raise entry.at("ops").items()[i].error(f"the plan has no op '{op.op}' on '{op.device}'")
    for transfer in timeline.transfers:
        for name in (transfer.source, transfer.destination):
            _check_device(entry.at("transfers"), plan, name)
    for name in timeline.memory:
        _check_device(entry.at("memory"), plan, name)
    spans = {"ops": timeline.ops, "transfers": timeline.transfers}
    for key, group in spans.items():
        for i, span in enumerate(group):
            if not 0 <= span.start <= span.end:
                raise entry.at(key).items()[i].error(f"it lasts from {span.start} to {span.end} s")


def _check_device(entry: Entry, plan: Plan, name: str) -> None:
    if name not in plan.cluster.device:
        raise entry.error(f"'{name}' is no device of the cluster", help="devices: " + ", ".join(plan.cluster.device))
