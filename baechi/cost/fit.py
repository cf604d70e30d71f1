"""Rates from measurements: a least time and a rate, by least squares, with their standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baechi.errors import BaechiError

__all__ = ["Fit", "fit_rate"]


@dataclass(frozen=True, slots=True)
class Fit:
    """seconds = least + amount / rate.

    Attributes:
        least_seconds: what no amount goes below: a launch, a latency.
        rate: amount per second.
        least_error: standard error of `least_seconds`, in seconds.
        rate_error: standard error of `rate`, as a fraction of it.
        residual: root mean square of the relative differences between points and line.
    """

    least_seconds: float
    rate: float
    least_error: float
    rate_error: float
    residual: float

    def seconds(self, amount: float) -> float:
        """What the line gives for an amount."""
        return self.least_seconds + amount / self.rate


def fit_rate(points: Sequence[tuple[float, float]]) -> Fit:
    """The line through points of (amount, seconds) whose relative differences have the least sum of squares.

    Relative, for a small amount says as much of the least time as a large one of the rate. Neither is
    negative: a least time below zero counts as zero.

    Args:
        points: at least three, of two amounts or more, all of some time.

    Raises:
        BaechiError: B311 when the points do not tell a rate: too few, or no more time for more.

    Example:
        >>> fit = fit_rate([(0, 1.0), (10, 2.0), (20, 3.0)])
        >>> round(fit.least_seconds, 9), round(fit.rate, 9), fit.residual < 1e-9
        (1.0, 10.0, True)
    """
    amount, seconds = (np.array(column, np.float64) for column in zip(*points, strict=True))
    if len(points) < 3 or (seconds <= 0).any() or len(set(amount)) < 2:
        raise BaechiError("B311", "a rate needs three measured times of two amounts", help="measure again")
    scale = float(amount.max())
    table = np.column_stack([np.ones_like(amount), amount / scale]) / seconds[:, None]
    values, _, _, _ = np.linalg.lstsq(table, np.ones_like(seconds), rcond=None)
    used = [0, 1]
    if values[0] < 0:
        used = [1]
        values = np.array([0.0, float(table[:, 1].sum() / (table[:, 1] ** 2).sum())])
    if values[1] <= 0:
        raise BaechiError("B311", "larger amounts took no longer", help="measure again on a quiet machine")
    off = table @ values - 1
    variance = float(off @ off) / (len(points) - len(used))
    errors = np.zeros(2)
    errors[used] = np.sqrt(np.diag(np.linalg.inv(table[:, used].T @ table[:, used])) * variance)
    rate = scale / float(values[1])
    return Fit(float(values[0]), rate, float(errors[0]), float(errors[1] / values[1]), float(np.sqrt(np.mean(off**2))))
