"""The switch that turns placing off."""

import os

__all__ = ["is_disabled"]


def is_disabled() -> bool:
    """Whether ``BAECHI_DISABLE`` says to leave everything alone."""
    return os.environ.get("BAECHI_DISABLE", "") not in ("", "0")
