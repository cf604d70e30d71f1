"""Asynchronous SGD as a stochastic delay differential equation: when it is stable, how fast, how noisy.

Near an optimum, along a direction of curvature h, M workers whose gradients take T seconds each move the model as
``dx = -a x(t - T) dt + noise`` with ``a = step size * h * M / E[T]``: only the product ``p = step size * h * M = a E[T]``
and the law of T count, and the roots of ``s + a E[exp(-s T)] = 0`` say what happens (`baechi.replicas.characteristic`).
A fixed delay is stable below pi/2 and fastest at 1/e. Where a discrete form is exact, it is used:
one worker, and workers that all take the same time, whose gradients miss exactly M - 1 updates.

A law with much spread bears more delay in the mean: an exponential one any product. A single run does
not: random times multiply its errors. For exponential times the limit in mean square is exact here, for other laws
a run is simulated (`baechi.replicas.asgd`).

Source: Yu, Chen and Poor, "Distributed stochastic gradient descent with staleness: a stochastic delay differential
equation based framework" (2406.11159; IEEE Transactions on Signal Processing, 2025).
"""

import cmath
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from baechi.replicas.asgd import run_limit
from baechi.replicas.characteristic import leading_root, merging, stable_rate, stationary_variance
from baechi.replicas.delays import Delay, Erlang, Histogram

__all__ = [
    "best_product",
    "discrete_best",
    "discrete_limit",
    "discrete_root",
    "limit",
    "root",
    "variance",
]

_SEARCH = 28
_WITHIN = 0.95
_FAR = 8.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def discrete_limit(missed: int) -> float:
    """Step size times curvature below which ``x[k+1] = x[k] - e x[k-m]`` decays: ``2 sin(pi/(2(2m+1)))``.

    Example:
        >>> [round(discrete_limit(m), 4) for m in (0, 1, 2, 5, 10, 20)]
        [2.0, 1.0, 0.618, 0.2846, 0.1495, 0.0766]
    """
    return 2 * math.sin(math.pi / (2 * (2 * missed + 1)))


def discrete_best(missed: int) -> tuple[float, float]:
    """The fastest such e, ``m^m/(m+1)^(m+1)``, and what remains after each update, ``m/(m+1)``.

    Example:
        >>> discrete_best(1)
        (0.25, 0.5)
    """
    return missed**missed / (missed + 1) ** (missed + 1), missed / (missed + 1)


def discrete_root(missed: int, gain: float) -> complex:
    """The greatest root of ``z^(m+1) = z^m - e``: what remains after each update.

    Args:
        missed: m, updates between reading and applying.
        gain: e, step size times curvature.

    Example:
        >>> round(abs(discrete_root(2, discrete_limit(2))), 9)
        1.0
    """
    roots = np.roots([1.0, -1.0, *[0.0] * (missed - 1), gain]) if missed else np.array([1.0 - gain])
    greatest = complex(max(roots, key=lambda z: (round(abs(z), 12), z.imag)))
    return greatest if missed else complex(1.0 - gain)


def root(law: Delay, workers: int, product: float) -> complex:
    """Rate of growth and angular frequency of a mode, in 1/s; it decays where the real part is below 0.

    Args:
        law: of the time of a gradient.
        workers: M.
        product: p, step size x curvature x workers.
    """
    if workers == 1:
        left = 1.0 - product
        return cmath.log(left) / law.mean if left else complex(-math.inf)
    if not _is_fixed(law):
        return leading_root(law, product / law.mean)
    left_over = discrete_root(workers - 1, product / workers)
    return cmath.log(left_over) * workers / law.mean if left_over else complex(-math.inf)


@lru_cache(maxsize=256)
def limit(law: Delay, workers: int) -> float:
    """The product p = step size x curvature x workers from which on it diverges.

    Exact for one worker (2), for a fixed time (`discrete_limit`) and, in mean square, for exponential times; for other
    laws the limit of the characteristic equation, or that of a simulated run where this is lower.

    Example:
        >>> from baechi.replicas.delays import fixed
        >>> round(limit(fixed(1.0), 4) / 4, 3)
        0.445
    """
    if workers == 1:
        return 2.0
    if _is_fixed(law):
        return workers * discrete_limit(workers - 1)
    if _is_exponential(law):
        return workers * _first_above(lambda gain: _spectral_radius(workers, gain), 2.0)
    return workers * run_limit(law, workers, min(2.0, stable_rate(law) * law.mean / workers))


def variance(law: Delay, workers: int, product: float) -> float:
    """Variance of the distance from the optimum in the long run, over (step size x deviation of a gradient)^2.

    Exact for one worker, a fixed time and exponential times; for others that of the stochastic delay
    equation. Infinity when it diverges.
    """
    if product >= limit(law, workers):
        return math.inf
    gain = product / workers
    if workers == 1:
        return 1 / (gain * (2 - gain))
    if _is_fixed(law):
        return _discrete_variance(workers - 1, gain)
    if _is_exponential(law):
        moments = _moments(workers, gain)
        source = np.array([1.0, 1 / workers, 1 / workers, 0.0])
        return float(np.linalg.solve(np.eye(4) - moments, source)[0])
    return stationary_variance(law, product / law.mean) * workers / law.mean


def best_product(law: Delay, workers: int, spread: float = 1.0) -> float:
    """The product p for which the slowest direction decays fastest.

    Args:
        law: of the time of a gradient.
        workers: M.
        spread: greatest curvature over least: 1 when there is one direction.

    Example:
        >>> from baechi.replicas.delays import Erlang
        >>> round(best_product(Erlang(1, 1.0), 8), 6)
        0.25
    """
    if spread == 1 and (workers == 1 or _is_fixed(law)):
        return workers * discrete_best(workers - 1)[0]

    plain = 1.0 if workers == 1 else merging(law)[0] * law.mean  # faster and faster up to here
    found = _searched(law, 2 if workers > 1 and not _is_fixed(law) else workers, spread, plain)
    return min(found, _WITHIN * limit(law, workers))


@lru_cache(maxsize=256)
def _searched(law: Delay, workers: int, spread: float, plain: float) -> float:
    """The best product from `plain` on, by golden section; the characteristic equation knows no number of workers."""

    def rate(product: float) -> float:
        return min(-root(law, workers, p).real for p in (product, product / spread))

    most = limit(law, workers) if workers == 1 or _is_fixed(law) else stable_rate(law) * law.mean
    low, high = plain, min(most, plain * max(_FAR, spread))
    for _ in range(_SEARCH):
        one, two = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, two) if rate(one) >= rate(two) else (one, high)
    found = (low + high) / 2
    return found if rate(found) > rate(plain) * (1 + 1e-6) else plain


def _is_fixed(law: Delay) -> bool:
    return isinstance(law, Histogram) and law.is_fixed


def _is_exponential(law: Delay) -> bool:
    return isinstance(law, Erlang) and law.shape == 1 and law.offset == 0


def _discrete_variance(missed: int, gain: float) -> float:
    """The integral of ``1/|z - 1 + e z^-m|^2`` over the unit circle, by trapezia, which converge geometrically."""
    nearest = 1 - abs(discrete_root(missed, gain))
    turn = 2 * math.pi / _circle(missed, nearest) * np.arange(_circle(missed, nearest))
    z = np.exp(1j * turn)
    return float((1 / np.abs(z - 1 + gain * z**-missed) ** 2).mean())


def _circle(missed: int, nearest: float) -> int:
    return min(1 << 22, max(4096, math.ceil(40 / nearest), 64 * missed))


def _moments(workers: int, gain: float) -> NDArray[np.float64]:
    """Second moments from update to update when each comes from any worker alike, as with exponential times.

    Of the model x and what each of M workers has read, y: E[x x], E[x y], E[y y] of one worker and of two. The
    chosen worker's gradient makes ``x' = x - e y``, and it reads ``y' = x'``.
    """
    e, m = gain, workers
    x = np.array([1.0, -2 * e, e * e, 0.0])
    xy = np.array([0.0, 1 - 1 / m, 0.0, -e * (m - 1) / m]) + x / m
    one = np.array([0.0, 0.0, 1 - 1 / m, 0.0]) + x / m
    two = np.array([0.0, 2 / m, 0.0, (m - 2 - 2 * e) / m])
    return np.array([x, xy, one, two])


def _spectral_radius(workers: int, gain: float) -> float:
    return float(np.abs(np.linalg.eigvals(_moments(workers, gain))).max())


def _first_above(radius: Callable[[float], float], high: float) -> float:
    """Where a radius that begins below 1 first passes it."""
    low = 0.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if radius(middle) < 1 else (low, middle)
    return low
