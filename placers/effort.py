"""What a placer may spend on a very large problem, by one measure for all of them."""

from baechi.cost.problem import Arrays

__all__ = ["visits"]

_DEVICES = 32  # up to which their number hardly tells on the time


def visits(a: Arrays) -> int:
    """Ops and reads that scheduling and simulating a step once look at, as often as there are 32 devices."""
    return (len(a.rank) + len(a.in_t) + 1) * max(1, len(a.cap) // _DEVICES)
