"""A plan as it is, on devices or links that are faster: what a step would take without placing it again."""

from dataclasses import dataclass

import numpy as np

from baechi.cost.problem import Arrays, Problem
from baechi.ir.plan import Plan
from baechi.sim.evaluate import judge, plan_schedule
from baechi.units import to_seconds

__all__ = ["Outcome", "SamePlan"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a schedule is worth.

    Attributes:
        objective_seconds: the step, or the highest load of a device.
        over_bytes: by how much devices are over their caps, summed.
    """

    objective_seconds: float
    over_bytes: int


class SamePlan:
    """A plan that keeps its devices and its orders, whatever its cluster becomes.

    Args:
        problem: what the plan places, on its cluster.
        plan: the plan.

    Raises:
        BaechiError: B402 or B403 when the plan is not for this problem.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self._arrays, self._schedule = problem.arrays, plan_schedule(problem, plan)
        self._names = tuple(problem.cluster.device)

    def with_faster_links(self, factor: float) -> Outcome:
        """All links so many times faster: latency and time per byte, declared transfer times too; above 1 is faster."""
        a = self._arrays
        return self._outcome(
            a._replace(
                latency=np.rint(a.latency / factor).astype(np.int64),
                ticks_per_byte=a.ticks_per_byte / factor,
                t_ticks=np.where(a.t_ticks > 0, np.rint(a.t_ticks / factor).astype(np.int64), a.t_ticks),
            )
        )

    def with_faster_device(self, device: str | None, factor: float) -> Outcome:
        """One device computing so many times faster; all of them when None."""
        a = self._arrays
        chosen = np.array([device in (None, name) for name in self._names])
        return self._outcome(
            a._replace(ticks=np.where(chosen[None, :], np.rint(a.ticks / factor).astype(np.int64), a.ticks))
        )

    def _outcome(self, arrays: Arrays) -> Outcome:
        over, ticks = judge(arrays, self._schedule).score
        return Outcome(to_seconds(ticks), over)
