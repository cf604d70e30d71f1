"""Robust rules inside a round: rows are gathered, and every worker aggregates them by itself."""

from collections.abc import Generator

from torch import Tensor

from baechi.replicas.methods.core import Gather, Request
from baechi.replicas.methods.descent import refuse

__all__ = ["aggregated", "check_rule"]


def check_rule(name: str, rule: str, f: int) -> None:
    """Refuse a rule that there is not, or that needs more than rows.

    Raises:
        BaechiError: B831.
    """
    if rule == "mean":
        return
    from baechi.replicas.rules import RULES

    if rule not in RULES or rule == "zeno":
        known = ", ".join(known for known in RULES if known != "zeno")
        raise refuse(name, f"no rule '{rule}' for rounds", f"one of: {known}")
    if f < 0:
        raise refuse(name, f"f is {f}", "at least 0")


def aggregated(rule: str, f: int, own: Tensor, active: bool = True) -> Generator[Request, Tensor, Tensor]:
    """What a rule makes of the workers' tensors, (d,).

    Args:
        rule: of `baechi.replicas.rules`.
        f: hostile workers that it is to survive.
        own: this worker's tensor.
        active: whether it takes part.
    """
    from baechi.replicas.rules import aggregate

    def made(rows: Tensor) -> Tensor:
        result: Tensor = aggregate(rule, rows, f=f)
        return result

    return (yield Gather(own, active, made))
