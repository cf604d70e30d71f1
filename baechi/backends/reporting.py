"""A planner that can also write a page about the plans that it made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from baechi.errors import BaechiError
from baechi.ir.graph import Graph
from baechi.ir.plan import Plan

__all__ = ["Reporter", "Reporting", "report_of"]

Reporter = Callable[[Sequence[tuple[Graph, Plan]], str], None]
"""Writes a page about graphs and their plans."""


@dataclass(frozen=True, eq=False)
class Reporting:
    """Called like the planner.

    Args:
        planner: plans a call.
        reporter: writes about plans.
    """

    planner: Callable[..., Any]
    reporter: Reporter

    def __call__(self, *call: Any) -> Any:
        """Plan a call."""
        return self.planner(*call)


def report_of(planner: object, plans: Sequence[tuple[Graph, Plan]], path: str) -> None:
    """Write a page about the plans that a planner made so far.

    Raises:
        BaechiError: B404 when it cannot be written, B407 when Bokeh is not there, B606 while there are none.
    """
    if not plans or not isinstance(planner, Reporting):
        raise BaechiError("B606", "nothing is placed yet", help="make a call: the first of each kind is planned")
    planner.reporter(plans, path)
