"""A profiled run of a plan as data."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baechi.ir.graph import Graph
from baechi.ir.json import plan_to_dict, timeline_to_dict
from baechi.ir.plan import Plan
from baechi.ir.timeline import Timeline
from baechi.profile.measured import Measured
from baechi.profile.traced import op_times

__all__ = ["PROFILE_SCHEMA", "Profiled", "profile_dict", "profiled"]

PROFILE_SCHEMA = "baechi/profile/1"
_FAR = 3.0  # quartile distances from the quartiles beyond which a step is an outlier


@dataclass(frozen=True, eq=False)
class Profiled:
    """What a profiled run was like.

    Args:
        measured: the steps in which nothing was noted.
        timeline: the median one of those in which everything was; without memory where that cannot be told.
        overhead: what noting added to the median step, as a fraction of it.
        ops: seconds by device type and `Op.key`.
    """

    measured: Measured
    timeline: Timeline
    overhead: float
    ops: Mapping[str, Mapping[str, float]]

    @property
    def outliers(self) -> tuple[int, ...]:
        """Indices of the steps that took far longer or shorter than the others.

        Source: Tukey, "Exploratory Data Analysis" (1977): beyond three quartile distances, "far out".
        """
        seconds = self.measured.all_seconds
        if len(seconds) < 4:
            return ()
        low, _, high = statistics.quantiles(seconds, n=4)
        reach = _FAR * (high - low)
        return tuple(i for i, s in enumerate(seconds) if not low - reach <= s <= high + reach)


def profiled(
    graph: Graph,
    plan: Plan,
    measured: Measured,
    steps: Sequence[Timeline],
    busy: Sequence[Timeline] | None = None,
) -> Profiled:
    """Put together what a run measured.

    Args:
        graph: of the plan.
        plan: that was run.
        measured: steps in which nothing was noted.
        steps: those in which everything was, at least one.
        busy: the same as `busy_steps`, where a device has to do with an op for longer than it runs.
    """
    lengths = [step.step_seconds for step in steps]
    middle = steps[lengths.index(statistics.median_low(lengths))]
    overhead = statistics.median(lengths) / measured.step_seconds - 1 if measured.step_seconds else 0.0
    return Profiled(measured, middle, overhead, op_times(graph, plan.cluster, steps if busy is None else busy))


def profile_dict(plan: Plan, found: Profiled) -> dict[str, Any]:
    """A profile as plain data."""
    measured = found.measured
    return {
        "schema": PROFILE_SCHEMA,
        "plan": plan_to_dict(plan),
        "timeline": timeline_to_dict(found.timeline),
        "step_seconds": {
            "median": measured.step_seconds,
            "spread": measured.spread,
            "all": list(measured.all_seconds),
        },
        "peak_bytes": dict(measured.peak_bytes),
        "losses": list(measured.losses),
        "overhead": found.overhead,
        "ops": {kind: dict(times) for kind, times in found.ops.items()},
    }
