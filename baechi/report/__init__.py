"""What a person is told of a plan: pure functions from data to text, and pages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baechi.report.files import Step, read_step
    from baechi.report.page.write import write_report

__all__ = ["Step", "read_step", "write_report"]


def __getattr__(name: str) -> Any:
    """Load what a page needs only when one is made."""
    from importlib import import_module

    if name in ("Step", "read_step"):
        return getattr(import_module("baechi.report.files"), name)
    if name == "write_report":
        return import_module("baechi.report.page.write").write_report
    raise AttributeError(f"module 'baechi.report' has no attribute '{name}'")
