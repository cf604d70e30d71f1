"""A plan as it is, on devices or links that are faster: what a step would take without placing it again."""

from dataclasses import dataclass

import numpy as np

from baechi.cost.problem import Arrays, Problem
from baechi.ir.plan import Plan
from baechi.sim.evaluate import judge, plan_schedule
from baechi.units import to_seconds

__all__ = ["Outcome", "with_faster_device", "with_faster_links"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a schedule is worth.

    Attributes:
        objective_seconds: the step, or the highest load of a device.
        over_bytes: by how much devices are over their caps, summed.
    """

    objective_seconds: float
    over_bytes: int


def with_faster_links(problem: Problem, plan: Plan, factor: float) -> Outcome:
    """The plan with all links so many times faster: latency and time per byte, declared transfer times too.

    Args:
        problem: what the plan places, on its cluster.
        plan: keeps its devices and its orders.
        factor: above 1 is faster.

    Raises:
        BaechiError: B402 or B403 when the plan is not for this problem.
    """
    a = problem.arrays
    faster = a._replace(
        latency=np.rint(a.latency / factor).astype(np.int64),
        ticks_per_byte=a.ticks_per_byte / factor,
        t_ticks=np.where(a.t_ticks > 0, np.rint(a.t_ticks / factor).astype(np.int64), a.t_ticks),
    )
    return _outcome(problem, plan, faster)


def with_faster_device(problem: Problem, plan: Plan, device: str | None, factor: float) -> Outcome:
    """The plan with one device computing so many times faster; with all of them when None.

    Arguments and errors as `with_faster_links`.
    """
    a = problem.arrays
    chosen = np.array([device is None or d.name == device for d in problem.cluster.devices])
    ticks = np.where(chosen[None, :], np.rint(a.ticks / factor).astype(np.int64), a.ticks)
    return _outcome(problem, plan, a._replace(ticks=ticks))


def _outcome(problem: Problem, plan: Plan, arrays: Arrays) -> Outcome:
    over, ticks = judge(arrays, plan_schedule(problem, plan)).score
    return Outcome(to_seconds(ticks), over)
