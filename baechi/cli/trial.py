"""Try a plan of several processes, for what ops take beside others.

Ops measured in one process do not show it: processes share memory and caches, and what a device sends takes its time.
So some steps are trained as the plan says, and the plan that counts is made with what the ops took then.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from baechi.cli.carriers import carrier_of
from baechi.cli.output import say
from baechi.errors import BaechiError
from baechi.units import format_seconds

if TYPE_CHECKING:
    from baechi.cli.saved import PlannedStep
    from baechi.cost import CostTable
    from baechi.ir.plan import Plan

__all__ = ["tried"]

_STEPS, _WARMUP = 8, 3


def tried(plan: "Plan", load: "Callable[[], PlannedStep]", *, seed: int, table_file: str | None) -> "CostTable | None":
    """Op times of a trial, which are kept; None where the plan is not one of several processes on this machine.

    Args:
        plan: made with op times of one process.
        load: gives its step, which is asked for where there is a trial.
        seed: of weights and dropout.
        table_file: where measured op times are kept.
    """
    from baechi.cost import CostTable
    from baechi.profile.tables import write_table

    carrier = carrier_of(plan.target.get("framework"))
    if carrier.in_threads or not _is_of_processes_here(plan):
        return None
    options = argparse.Namespace(steps=_STEPS, warmup=_WARMUP, seed=seed)
    try:
        ran = carrier.profile(plan, load, options)
    except BaechiError as error:
        say(f"note: no trial, so ops have the times of one process: {error.what}")
        return None
    if ran is None:
        return None
    step, found = ran
    table = (step.table or CostTable()).merged(found.ops)
    took, expected = found.measured.step_seconds, plan.predicted.step_seconds
    say(f"note: tried for some steps of {format_seconds(took)}, {format_seconds(expected)} by the ops of one process")
    write_table(table, table_file)
    return table


def _is_of_processes_here(plan: "Plan") -> bool:
    used = [plan.cluster.device[name] for name in set(plan.device.values())]
    return len(used) > 1 and all(device.type == "cpu" for device in used)
