"""Colours that can be told apart on white and on black, and by people who see fewer of them."""

__all__ = ["CAP", "CRITICAL", "DEVICES", "PHASES", "TRANSFER", "colour_of"]

DEVICES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#99806b", "#888888")
"""Of devices, in the cluster's order: Paul Tol's "bright" scheme, and more ("Colour Schemes", SRON/EPS/TN/09-002)."""

PHASES = ("#4e79a7", "#6f97c1", "#e08a3c", "#efaa6c", "#4f9d69", "#77b98c")
"""Two tones for each phase: forward, backward, update."""

TRANSFER = "#8a7fb0"
CRITICAL = "#e00034"
CAP = "#e00034"


def colour_of(number: int) -> str:
    """The colour of a device by its place in the cluster; they repeat."""
    return DEVICES[number % len(DEVICES)]
