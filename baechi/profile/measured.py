"""A measured step, whatever ran it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["PLAIN_DEVICE", "Measured", "middle_half", "summarize"]

PLAIN_DEVICE = "cpu"
"""The one device of a plain run, in `Measured.peak_bytes`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured step.

    Attributes:
        step_seconds: the median.
        all_seconds: of each timed step.
        spread: the distance between the quartiles, as a fraction of the median.
        losses: of each step, those of the warm-up first; empty when the step has no loss.
        peak_bytes: by device, of one more step.
    """

    step_seconds: float
    all_seconds: tuple[float, ...]
    spread: float
    losses: tuple[float, ...]
    peak_bytes: dict[str, int]


def summarize(seconds: Sequence[float], losses: Sequence[float], peaks: Mapping[str, int]) -> Measured:
    """A measured step from the time of each (at least one), the losses and the peaks.

    Example:
        >>> summarize([3.0, 1.0, 2.0], [0.5], {"cpu:0": 4}).step_seconds
        2.0
    """
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (median,) * 3
    return Measured(median, tuple(seconds), (high - low) / median if median else 0.0, tuple(losses), dict(peaks))


def middle_half(seconds: Sequence[float]) -> list[int]:
    """Which of some steps are of middle length, shortest first: those that say what their parts take.

    Of so many parts the sum of medians is less than any step takes, for disturbances are always delays.

    Example:
        >>> middle_half([3.0, 1.0, 2.0, 9.0])
        [2, 0]
    """
    quarter = (len(seconds) + 1) // 4
    return sorted(range(len(seconds)), key=seconds.__getitem__)[quarter : len(seconds) - quarter]
