"""When inner-product manipulation breaks a rule: the expected result points away from the honest mean.

n = m - q honest peers send N(mu, sigma^2) in each of many coordinates, with r = |mu| / sigma; q hostile ones send
-epsilon times the honest mean. After Xie et al., Fall of empires, UAI 2020; the conditions for each rule:

- mean: epsilon q > n.
- coordinate median and trimmed mean: rank h of all m values is an honest value held between two of their ranks,
  c = -epsilon r between X_(h-q) and X_(h); its expectation is an integral over the ranks' distribution. For a
  median with q = (m - 1) / 2 and any small epsilon this is about r < E[max of n N(0, 1)].
- Krum: the hostile vector wins when (1 + epsilon)^2 r^2 + (epsilon^2 + 2 epsilon) / n < 2 k / (k - q + 1) - 1, with
  k = m - f - 2 neighbours; always when k < q, as it then has them all among its own.
- multi-Krum: as Krum, and the hostile ones outweigh the others chosen: epsilon q > m - f - q.
- geometric median: r < rho / sqrt(1 - rho^2) with rho = q / n, where r counts the noise of the mean.
- mean around the median, Phocas: the rule itself on 20,000 coordinates; a small epsilon breaks them, not a large one.
"""

from collections.abc import Callable, Mapping
from functools import cache
from math import comb, inf, sqrt
from types import MappingProxyType

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Array

__all__ = ["CONDITIONS", "breaking_ratio", "breaks"]

_COORDINATES = 20_000
_RATIOS = (1e-3, 64.0)
"""Between which the largest breaking ratio is looked for."""


def breaks(rule: str, m: int, q: int, *, epsilon: float, ratio: float, f: int | None = None) -> bool:
    """Whether inner-product manipulation turns a rule's expected result around.

    Args:
        rule: one of `CONDITIONS`.
        m: peers, the hostile ones among them.
        q: hostile peers.
        epsilon: of the attack.
        ratio: r: the honest mean over the standard deviation, in each coordinate.
        f: hostile peers that the rule is told to bear, b of the trimmed family; q when None.

    Raises:
        BaechiError: B824 when there is no condition for the rule, or a number is out of its range.

    Example:
        >>> breaks("krum", 25, 11, epsilon=0.1, ratio=1.0), breaks("krum", 25, 11, epsilon=10.0, ratio=1.0)
        (True, False)
    """
    if rule not in CONDITIONS:
        raise BaechiError("B824", f"no break condition for rule '{rule}'", help="one of: " + ", ".join(CONDITIONS))
    bears = q if f is None else f
    if not (0 <= q < m and 0 <= bears < m and epsilon >= 0 and ratio >= 0):
        what = f"{q} hostile of {m} peers, {bears} borne, epsilon {epsilon:g}, ratio {ratio:g}"
        raise BaechiError("B824", what, help="less than all peers, and numbers of 0 up")
    if rule in _TRIMMED and 2 * bears >= m:
        raise BaechiError("B824", f"rule '{rule}' does not bear {bears} of {m} peers", help=f"at most {(m - 1) // 2}")
    return q > 0 and CONDITIONS[rule](m, q, bears, epsilon, ratio)


def breaking_ratio(rule: str, m: int, q: int, *, epsilon: float, f: int | None = None) -> float:
    """Up to which ratio of mean to noise the attack breaks a rule: 0 never, inf always. As `breaks` otherwise."""
    low, high = _RATIOS
    if not breaks(rule, m, q, epsilon=epsilon, ratio=low, f=f):
        return 0.0
    if breaks(rule, m, q, epsilon=epsilon, ratio=high, f=f):
        return inf
    while high / low > 1.001:
        middle = sqrt(low * high)
        low, high = (middle, high) if breaks(rule, m, q, epsilon=epsilon, ratio=middle, f=f) else (low, middle)
    return low


def _mean(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
    return epsilon * q > m - q


def _median(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
    return _rank(m, q, (m - 1) // 2, epsilon, r) + _rank(m, q, m // 2, epsilon, r) < 0


def _trimmed_mean(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
    return sum(_rank(m, q, h, epsilon, r) for h in range(f, m - f)) < 0


def _krum(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
    k = max(1, m - f - 2)
    if k < q:
        return True
    return (1 + epsilon) ** 2 * r**2 + (epsilon**2 + 2 * epsilon) / (m - q) < 2 * k / (k - q + 1) - 1


def _multi_krum(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
    return _krum(m, q, f, epsilon, r) and epsilon * q > m - f - q


def _geometric_median(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
    n = m - q
    if q >= n:
        return True
    return (r**2 + 1 / n) / (1 - 1 / n) < (q / n) ** 2 / (1 - (q / n) ** 2)


def _sampled(rule: str) -> Callable[[int, int, int, float, float], bool]:
    def condition(m: int, q: int, f: int, epsilon: float, r: float) -> bool:
        from baechi.replicas.rules import aggregate

        honest = r + np.random.default_rng(0).standard_normal((m - q, _COORDINATES))
        hostile = np.broadcast_to(-epsilon * honest.mean(0), (q, _COORDINATES))
        return bool(aggregate(rule, np.concatenate((honest, hostile)), b=f).mean() < 0)

    return condition


_TRIMMED = frozenset({"mean-around-median", "phocas", "trimmed-mean"})

CONDITIONS: Mapping[str, Callable[[int, int, int, float, float], bool]] = MappingProxyType(
    {
        "mean": _mean,
        "median": _median,
        "trimmed-mean": _trimmed_mean,
        "mean-around-median": _sampled("mean-around-median"),
        "phocas": _sampled("phocas"),
        "geometric-median": _geometric_median,
        "krum": _krum,
        "multi-krum": _multi_krum,
    }
)
"""By rule, from (m, q, f, epsilon, ratio) to whether it breaks."""


def _rank(m: int, q: int, h: int, epsilon: float, r: float) -> float:
    """E of rank h, from 0, of n honest values N(r, 1) and q values c: c + E(X_(h-q) - c)+ - E(c - X_(h))+."""
    n, c = m - q, -epsilon * r
    above = _excess(n, h - q, c - r) if h >= q else 0.0
    below = _excess(n, n - 1 - h, r - c) if h < n else 0.0
    return c + above - below


def _excess(n: int, rank: int, c: float) -> float:
    """E(X_(rank) - c)+ of n values N(0, 1): the integral of P(X_(rank) > z) from c."""
    z, step = _grid()
    over = _over(n, rank)
    first = int(np.searchsorted(z, c))
    return max(0.0, float(z[0]) - c) + float(over[first:].sum()) * step


@cache
def _grid() -> tuple[Array, float]:
    z, step = np.linspace(-9.0, 9.0, 9_001, retstep=True)
    return z, float(step)


@cache
def _over(n: int, rank: int) -> Array:
    """P(X_(rank) > z) on the grid: at most rank of n values are not larger."""
    z, step = _grid()
    density = np.exp(-(z**2) / 2) / sqrt(2 * np.pi)
    phi = np.clip(np.cumsum(density) * step - density * step / 2, 0.0, 1.0)
    total: Array = np.zeros_like(phi)
    for j in range(rank + 1):
        total += float(comb(n, j)) * phi**j * (1 - phi) ** (n - j)
    return total
