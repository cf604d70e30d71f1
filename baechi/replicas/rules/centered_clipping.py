"""Centred clipping (Karimireddy et al., Learning from history for Byzantine robust optimization, ICML 2021)."""

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Array, Rows, Stack, Vectors

__all__ = ["centered_clipping"]


def centered_clipping(
    stack: Stack, *, radius: float | None = None, start: Vectors | None = None, iterations: int = 1
) -> Rows:
    """v + the mean of the vectors' ways from v, none longer than a radius; some times over.

    Args:
        stack: the vectors; those not finite, or whose squared length overflows, have no say.
        radius: tau of the paper: about what honest vectors differ by; the median distance from v when None.
        start: v at first, (d,), or shards of it: such as the last round's result; the zero vector when None.
        iterations: how many times.

    Raises:
        BaechiError: B822 when an option is out of its range, B823 when the start does not fit the vectors.
    """
    if (radius is not None and not radius > 0) or iterations < 1:
        what = f"rule 'centered-clipping': radius {radius}, {iterations} iterations"
        raise BaechiError("B822", what, help="a positive radius, and at least 1")
    origin = None if start is None else stack.fitting(start, "start")
    gram = stack.products(origin)
    near, weights = stack.measurable(gram), np.zeros(len(stack))
    weights[near] = _weights(gram[np.ix_(near, near)], radius, iterations)
    moved = stack.combination(weights)
    if origin is None:
        return moved
    return [part + (1 - float(weights.sum())) * begin.to(part) for part, begin in zip(moved, origin, strict=True)]


def _weights(gram: Array, radius: float | None, iterations: int) -> Array:
    """The result's weights, less the start, from inner products (m, m) taken from the start."""
    weights: Array = np.zeros(len(gram))
    for _ in range(iterations):
        product = gram @ weights
        away = np.sqrt(np.maximum(weights @ product - 2 * product + np.diagonal(gram), 0.0))
        tau = float(np.median(away)) if radius is None else radius
        shares = np.where(away > tau, tau / np.where(away > tau, away, 1.0), 1.0) / len(gram)
        weights = weights * (1 - shares.sum()) + shares
    return weights
