"""Whether this machine has the memory for a plan."""

import psutil

from baechi.errors import BaechiError
from baechi.ir.plan import Plan
from baechi.units import format_bytes

__all__ = ["check_room"]


def check_room(plan: Plan, least_bytes: int = 0) -> None:
    """Refuse to start what this machine's memory cannot hold.

    Counted are the predicted peaks of the devices that are on this machine's processor.

    Args:
        plan: to run.
        least_bytes: what is needed at some time whatever the plan.

    Raises:
        BaechiError: B610.
    """
    local = [d.name for d in plan.cluster.devices if d.backend == "cpu"]
    needed = max(sum(plan.predicted.peak_bytes.get(d, 0) for d in local), least_bytes)
    free = int(psutil.virtual_memory().available)
    if needed > free:
        raise BaechiError(
            "B610",
            f"the plan needs {format_bytes(needed)} of this machine's memory, {format_bytes(free)} are free",
            help="place a smaller batch, or run it on a machine with more memory",
        )
