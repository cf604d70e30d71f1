"""The geometric median: the point whose summed distance to the vectors is smallest.

Every point on the way is a combination of the vectors, so that after their inner products nothing is as long as
a vector (Weiszfeld's iteration with the step of Vardi and Zhang, PNAS 97:1423-1426, 2000).
"""

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Array, Rows, Stack

__all__ = ["geometric_median", "weights_of_median"]


def geometric_median(stack: Stack, *, tolerance: float = 1e-12, iterations: int = 10_000) -> Rows:
    """The geometric median of the finite vectors.

    It bears fewer than half, unless other peers are hostile in each coordinate.

    Args:
        stack: the vectors; one whose squared length overflows is left out.
        tolerance: the last step over the median distance to the vectors.
        iterations: at most so many steps.

    Raises:
        BaechiError: B822 when an option is out of its range.
    """
    if tolerance < 0 or iterations < 1:
        what = f"rule 'geometric-median': tolerance {tolerance:g}, {iterations} iterations"
        raise BaechiError("B822", what, help="at least 0 and 1")
    gram, weights = stack.products(stack.row(stack.near())), np.zeros(len(stack))
    near = stack.measurable(gram)
    weights[near] = weights_of_median(gram[np.ix_(near, near)], tolerance, iterations)
    return stack.combination(weights)


def weights_of_median(gram: Array, tolerance: float, iterations: int) -> Array:
    """The median's weights, (m,), from inner products (m, m) taken from any one origin."""
    squares = np.diagonal(gram)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * gram, 0.0))
    np.fill_diagonal(apart, 0.0)
    best = int(np.argmin(apart.sum(0)))
    weights: Array = np.zeros(len(gram))
    weights[best] = 1.0
    others = apart[best] > 0.0
    pull = np.where(others, 1.0 / np.where(others, apart[best], 1.0), 0.0)
    from_best = (apart[best][:, None] ** 2 + apart[best][None] ** 2 - apart**2) / 2
    strength, here = float(np.sqrt(max(pull @ from_best @ pull, 0.0))), int((~others).sum())
    if strength <= here:
        return weights  # Vardi and Zhang: the others do not pull the best vector away
    weights = (here / strength) * weights + (1 - here / strength) * pull / pull.sum()
    for _ in range(iterations):
        product = gram @ weights
        away = np.sqrt(np.maximum(weights @ product - 2 * product + squares, np.finfo(float).tiny))
        step = 1.0 / away
        step = step / step.sum() - weights
        weights = weights + step
        if step @ gram @ step <= (tolerance * np.median(away)) ** 2:
            break
    return weights
