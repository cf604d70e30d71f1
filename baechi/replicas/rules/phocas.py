"""Phocas (Xie et al., Phocas: dimensional Byzantine-resilient stochastic gradient descent, 1805.09682)."""

from torch import Tensor

from baechi.replicas.rules.columns import in_order, nearest
from baechi.replicas.rules.stack import Rows, Stack
from baechi.replicas.rules.trimmed_mean import trimmed

__all__ = ["phocas"]


def phocas(stack: Stack, *, b: int) -> Rows:
    """Of each coordinate, the mean of the m - b values nearest to the trimmed mean.

    Args:
        stack: m vectors; those left out as not finite count among the b.
        b: hostile peers to bear, 2 b < m; also when they are others in each coordinate.
    """
    b = stack.bears(b)

    def around(block: Tensor) -> Tensor:
        m = len(block)
        rows = in_order(block, {*range(b), *range(m - b, m)}, range(b, m - b))
        return nearest(rows, trimmed(rows, b), b)

    return stack.columns(around)
