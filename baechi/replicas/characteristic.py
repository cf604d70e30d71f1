"""The roots of ``s + a E[exp(-s D)] = 0``, which say how ``dx = -a x(t - D) dt`` moves.

x is the distance from the optimum along one direction of the loss, a the step size times the curvature times the rate
of gradients, D the age of a gradient. Real parts of the roots are rates of growth.

For a fixed delay the rightmost root is ``W0(-a D)/D`` (Lambert's W); for other laws there is no closed form.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from baechi.replicas.delays import Complexes, Delay

__all__ = ["leading_root", "merging", "stable_rate", "stationary_variance"]

_FARTHEST = 100.0
"""Products ``a E[D]`` up to which a limit of stability is looked for."""
_SWING = 0.1
"""Radians that the transform may turn between two points of a grid."""
_CHUNK = 4096
_COARSE = 0.5
"""The same on a line that is made finer where it needs to be."""
_WIDE = 0.1
_NEAR = 1e-4
"""Widths of the strip that is searched, over the root that is real."""
_STARTS = 8
_DEEP = 300.0
"""Powers of e that the transform may have where a root is looked for."""
_TURN = 1.0
"""Radians between two points of a line beyond which a point is put between them."""


@lru_cache(maxsize=1024)
def stable_rate(law: Delay) -> float:
    """The rate a from which on x no longer decays, in 1/s; infinity when there is none up to ``100/E[D]``.

    On the limit a root is ``i w``: the real part of the transform is zero there, and ``a = w/|transform|``.

    Example:
        >>> from baechi.replicas.delays import Erlang, fixed
        >>> round(stable_rate(fixed(1.0)), 6), round(stable_rate(Erlang(2, 1.0)), 6), stable_rate(Erlang(1, 1.0))
        (1.570796, 4.0, inf)
    """
    best, step, start = math.inf, _SWING / law.longest, 0.0
    while start < min(best, _FARTHEST / law.mean):  # |transform| <= 1, so a >= w
        w = start + step * np.arange(_CHUNK + 1)
        ahead = law.transform(1j * w).real > 0
        for i in np.flatnonzero(ahead[1:] != ahead[:-1]):
            at = _first(partial(_turned, law, bool(ahead[i])), w[i], w[i + 1])
            value = _at(law, 1j * at)
            if value.imag < 0:
                best = min(best, at / abs(value))
        start = float(w[-1])
    return best


@lru_cache(maxsize=1024)
def merging(law: Delay) -> tuple[float, float]:
    """The rate a at which the leading root stops being real, and that root, both in 1/s.

    Up to it x decays without swinging, the faster the greater a is. For a fixed delay it is ``1/(e D)``, with
    the root ``-1/D``: e times as fast as with no delay.

    Example:
        >>> from baechi.replicas.delays import Erlang
        >>> [round(x, 6) for x in merging(Erlang(1, 1.0))]
        [0.25, -0.5]
    """

    def rises(s: float) -> bool:  # -s/transform(s), to the left
        return (_at(law, s) - s * complex(law.derivative(np.array(complex(s))))).real > 0

    with np.errstate(all="ignore"):  # a delay many times the mean overflows, and then this is false
        root = _first(rises, -1.0 / law.mean * (1 - 1e-12), 0.0)
        return -root / _at(law, root).real, root


@lru_cache(maxsize=1024)
def leading_root(law: Delay, a: float) -> complex:
    """The rightmost root, in 1/s: the one with an imaginary part of at least 0.

    Up to `merging` it is real: the left side is convex on the real line, and no complex root can have its real part
    between the two real ones. Beyond, the strip that holds it is halved by counting roots to the
    right of a line (argument principle), then Newton's method sharpens it.

    Example:
        >>> from baechi.replicas.delays import fixed
        >>> root = leading_root(fixed(1.0), 1.5707963267948966)
        >>> abs(root.real) < 1e-9, round(root.imag, 6)
        (True, 1.570796)
    """
    limit, real = merging(law)
    if a <= limit:
        return complex(_first(lambda s: s + a * _at(law, s).real > 0, real, 0.0))
    scale, gap = -real, -_NEAR * real
    low, high = real - gap, 0.0 if a < stable_rate(law) else 1.01 * a
    while _count(law, a, low) == 0:
        gap *= 2
        low = max(real - gap, (low + law.slowest) / 2)
    width = _WIDE
    while True:
        while high - low > width * scale:
            middle = (low + high) / 2
            low, high = (low, middle) if _count(law, a, middle) == 0 else (middle, high)
        found = max(_newton(law, a, low), key=lambda s: s.real)
        if found.real >= low and (width < _NEAR or _count(law, a, found.real + _NEAR * width * scale) == 0):
            return complex(found.real, abs(found.imag))
        if width < _NEAR * _NEAR:
            return complex(low, 0.0)  # as near as numbers tell roots of this law apart
        width /= 8


@lru_cache(maxsize=1024)
def stationary_variance(law: Delay, a: float) -> float:
    """Variance in which ``dx = -a x(t - D) dt + dW`` settles, in s; infinity when it does not.

    It is the integral of ``1/|i w + a transform(i w)|^2`` over w, over 2 pi. For a fixed delay
    ``(1 + sin a D)/(2 a cos a D)``.

    Example:
        >>> from baechi.replicas.delays import fixed
        >>> round(stationary_variance(fixed(0.6), 1.0), 3)
        0.948
    """
    root = leading_root(law, a)
    if root.real >= 0:
        return math.inf
    end = max(20 * a, 50 / law.mean, 20 * root.imag)
    even = np.arange(0.0, end, 2 / law.longest)
    peak = root.imag + abs(root.real) * np.concatenate([-(2.0 ** np.arange(40)), [0.0], 2.0 ** np.arange(40)])
    edges = np.unique(np.concatenate([even, peak[(peak > 0) & (peak < end)], [end]]))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges)[:, None] / 2
    w = edges[:-1, None] + half * (1 + nodes)
    density = 1 / np.abs(_left(law, a, 1j * w)) ** 2
    return float(((density * half) @ weights).sum() + 1 / end) / math.pi


def _at(law: Delay, s: complex) -> complex:
    return complex(law.transform(np.array(complex(s))))


def _turned(law: Delay, was: bool, w: float) -> bool:
    return (_at(law, 1j * w).real > 0) != was


def _left(law: Delay, a: float, s: Complexes) -> Complexes:
    found: Complexes = s + a * law.transform(s)
    return found


def _count(law: Delay, a: float, real: float) -> int:
    """Roots to the right of a line: turns of the left side along it, and back along an arc where it is nearly s."""
    w = _line(law, a, real)
    values = _left(law, a, real + 1j * w)
    for _ in range(60):
        turns = np.angle(values[1:] / values[:-1])
        wide = np.flatnonzero(np.abs(turns) > _TURN)
        if len(wide) == 0:
            break
        between = (w[wide] + w[wide + 1]) / 2
        w, values = np.insert(w, wide + 1, between), np.insert(values, wide + 1, _left(law, a, real + 1j * between))
    corner = complex(real, w[-1])
    back = np.angle(corner) + np.angle(values[-1] / corner)
    return round(float(back - turns.sum()) / math.pi)


def _newton(law: Delay, a: float, real: float) -> list[complex]:
    """Roots that Newton's method finds from where the left side is least along a line."""
    w = _line(law, a, real)
    size = np.abs(_left(law, a, real + 1j * w))
    inner = np.flatnonzero((size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])) + 1
    starts = [w[1] / 8, *w[inner[np.argsort(size[inner])][:_STARTS]].tolist()]  # on the real line it would stay there
    return [_sharpened(law, a, complex(real, start)) for start in starts]


def _sharpened(law: Delay, a: float, s: complex) -> complex:
    """Newton's method; infinitely far to the left when it finds no root."""
    lost = complex(-math.inf)
    for _ in range(60):
        if not s.real * law.longest > -_DEEP:
            return lost
        point = np.array(s)
        slope = complex(1 + a * law.derivative(point))
        if slope == 0:
            return lost
        move = complex(_left(law, a, point)) / slope
        s -= move
        if abs(move) <= 1e-14 * abs(s):
            break
    if not s.real * law.longest > -_DEEP:
        return lost
    return s if abs(complex(_left(law, a, np.array(s)))) <= 1e-8 * max(abs(s), a) else lost


def _line(law: Delay, a: float, real: float) -> NDArray[np.float64]:
    """Points up a line, as far as there may be roots: |s| <= a E[exp(-real D)] for each on it or to its right."""
    reach = a * _at(law, real).real + abs(real) + 1 / law.mean
    return np.linspace(0.0, reach, max(64, math.ceil(reach * law.longest / _COARSE)))


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where on the way from low to high a condition begins to hold, to the last bit."""
    low, high = float(low), float(high)
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
