"""How many workers may send stale gradients, and with which step size: the planner of asynchronous SGD.

Near an optimum, along a direction of curvature h, M workers whose gradients take T seconds each move the model as
``dx = -a x(t - T) dt + noise`` with ``a = step size * h * M / E[T]``: only the product ``p = step size * h * M = a E[T]``
and the law of T count (`baechi.replicas.sdde`). For a fixed time it is stable below pi/2 and fastest at 1/e, with
decay e times as fast as if no gradient were stale: at a given step size, more workers are not always faster.

Source: Yu, Chen and Poor, "Distributed stochastic gradient descent with staleness: a stochastic delay differential
equation based framework" (2406.11159; IEEE Transactions on Signal Processing, 2025).
"""

import math
from dataclasses import dataclass

from baechi.errors import BaechiError
from baechi.replicas.delays import Delay
from baechi.replicas.sdde import best_product, limit, root, variance

__all__ = ["MOST_WORKERS", "Advice", "Setting", "advise", "fastest_workers", "largest_workers", "setting"]

MOST_WORKERS = 1024
"""Up to which advice is given."""

_ALIKE = 1 - 1e-6
_SWINGS = 1e-5
_SHOWN = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Setting:
    """A number of workers with a step size, and what becomes of the distance from the optimum.

    Attributes:
        workers: M.
        step_size: of each gradient.
        product: p, step size x greatest curvature x workers.
        limit: of p, from which on it diverges.
        rate: at which the slowest direction decays, in 1/s; below 0 it grows; infinity when one update ends it.
        turn: time of one swing of the steepest direction about the optimum, in s; infinity when it does not swing.
        noise: standard deviation about the optimum in the long run, along the steepest direction, over that of a gradient.
    """

    workers: int
    step_size: float
    product: float
    limit: float
    rate: float
    turn: float
    noise: float

    @property
    def is_stable(self) -> bool:
        """Whether it converges."""
        return self.product < self.limit

    @property
    def fold_seconds(self) -> float:
        """Time in which the distance falls to 1/e."""
        return 1 / self.rate if self.rate > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about stale gradients.

    Attributes:
        law: of the time of a gradient.
        curvature: the greatest of the loss.
        least: the least that counts.
        asked: the setting that was asked about; None when workers or step size was left open.
        largest_step: with the workers that were asked for: from which step size on it diverges.
        fastest_step: with these workers, the setting with the fastest step size.
        largest_workers: with the step size that was asked for: how many still converge; 0 when not even one does.
        fastest_workers: with this step size, the setting with the fastest number of workers.
        table: for 1, 2, 4, … workers, each with its fastest step size.
    """

    law: Delay
    curvature: float
    least: float
    asked: Setting | None
    largest_step: float | None
    fastest_step: Setting | None
    largest_workers: int | None
    fastest_workers: Setting | None
    table: tuple[Setting, ...]


def advise(
    law: Delay,
    curvature: float,
    *,
    step_size: float | None = None,
    workers: int | None = None,
    least: float | None = None,
) -> Advice:
    """Say how many workers, which step size, and whether it is stable.

    Args:
        law: of the time from reading the model to applying the gradient, in seconds.
        curvature: greatest eigenvalue of the loss's Hessian (`baechi.replicas.curvature`).
        step_size: when it is given, the numbers of workers that it bears are found.
        workers: when it is given, the step sizes that they bear are found.
        least: the least curvature, whose direction is the slowest; the greatest when None.

    Raises:
        BaechiError: B850 on a curvature, step size or number of workers that is none.

    Example:
        >>> from baechi.replicas.delays import fixed
        >>> advice = advise(fixed(0.1), curvature=4.0, step_size=0.05, workers=16)
        >>> advice.asked.is_stable, advice.largest_workers, advice.fastest_workers.workers
        (False, 8, 3)
    """
    least = curvature if least is None else least
    _check(curvature, least, step_size, workers)
    asked = setting(law, workers, step_size, curvature, least) if workers and step_size else None
    shown = [m for m in _SHOWN if workers is None or m <= 2 * workers]
    return Advice(
        law,
        curvature,
        least,
        asked,
        limit(law, workers) / (curvature * workers) if workers else None,
        _fastest_step(law, workers, curvature, least) if workers else None,
        largest_workers(law, step_size * curvature) if step_size else None,
        fastest_workers(law, step_size, curvature, least) if step_size else None,
        tuple(_fastest_step(law, m, curvature, least) for m in shown),
    )


def setting(law: Delay, workers: int, step_size: float, curvature: float, least: float) -> Setting:
    """What becomes of so many workers with this step size; arguments as for `advise`."""
    product = step_size * curvature * workers
    steepest, flattest = root(law, workers, product), root(law, workers, product * least / curvature)
    turn = abs(steepest.imag)
    most = limit(law, workers)
    rate = -max(steepest.real, flattest.real)
    return Setting(
        workers,
        step_size,
        product,
        most,
        rate,
        2 * math.pi / turn if turn > _SWINGS * abs(rate) else math.inf,
        step_size * math.sqrt(variance(law, workers, product)),
    )


def largest_workers(law: Delay, gain: float) -> int:
    """How many workers converge, up to `MOST_WORKERS`; 0 when not even one does.

    Args:
        law: of the time of a gradient.
        gain: step size times curvature.

    Example:
        >>> from baechi.replicas.delays import Erlang, fixed
        >>> largest_workers(fixed(1.0), 0.1), largest_workers(Erlang(1, 1.0), 0.1)
        (16, 210)
    """
    if gain >= limit(law, 1):
        return 0
    low, high = 1, 2
    while high <= MOST_WORKERS and gain * high < limit(law, high):
        low, high = high, 2 * high
    if high > MOST_WORKERS:
        return MOST_WORKERS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gain * middle < limit(law, middle) else (low, middle)
    return low


def fastest_workers(law: Delay, step_size: float, curvature: float, least: float) -> Setting | None:
    """The number of workers for which the slowest direction decays fastest; None when none converges.

    Found by ternary search between 1 and what converges: decay first gains from each worker, then loses.
    """
    low, high = 1, largest_workers(law, step_size * curvature)
    if high == 0:
        return None

    def rate(workers: int) -> float:
        product = step_size * curvature * workers
        return min(-root(law, workers, p).real for p in (product, product * least / curvature))

    while high - low > 2:
        third = (high - low) // 3
        one, two = low + third, high - third
        low, high = (low, two - 1) if rate(one) >= rate(two) * _ALIKE else (one + 1, high)
    rates = {workers: rate(workers) for workers in range(low, high + 1)}
    best = max(rates.values()) * _ALIKE
    return setting(law, next(m for m, found in rates.items() if found >= best), step_size, curvature, least)


def _fastest_step(law: Delay, workers: int, curvature: float, least: float) -> Setting:
    product = best_product(law, workers, curvature / least)
    return setting(law, workers, product / (curvature * workers), curvature, least)


def _check(curvature: float, least: float, step_size: float | None, workers: int | None) -> None:
    if not 0 < least <= curvature < math.inf:
        what = f"curvatures from {least} to {curvature} are none of a minimum"
        raise BaechiError("B850", what, help="the greatest is above 0, and the least is between 0 and that")
    if step_size is not None and not 0 < step_size < math.inf:
        raise BaechiError("B850", f"a step size of {step_size} is none", help="a number above 0")
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise BaechiError("B850", f"{workers} workers are none", help=f"a whole number from 1 to {MOST_WORKERS}")
