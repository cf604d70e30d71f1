"""The environment of processes that a command starts."""

import os
import sys
from collections.abc import Mapping

__all__ = ["child_environment"]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where a child finds the same modules as this process, with an allocator fit for measuring.

    Args:
        more: variables over those.
    """
    from baechi.profile.machine import tuned_environment

    path = os.pathsep.join(entry or os.curdir for entry in sys.path)
    return {**os.environ, **tuned_environment(), "PYTHONPATH": path, **(more or {})}
