"""The mean around the median (MeaMed; Xie et al., Generalized Byzantine-tolerant SGD, 1802.10116)."""

from torch import Tensor

from baechi.replicas.rules.columns import in_order, nearest
from baechi.replicas.rules.median import middle, middle_ranks
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["mean_around_median"]


def mean_around_median(stack: Stack, *, b: int) -> Rows:
    """Of each coordinate, the mean of the m - b values nearest to the median.

    Args:
        stack: m vectors; those left out as not finite count among the b.
        b: hostile peers to bear, 2 b < m; also when they are others in each coordinate.
    """
    b = stack.bears(b)

    def around(block: Tensor) -> Tensor:
        m = len(block)
        exact = {*range(b), *range(m - b, m), *middle_ranks(m)}
        rows = in_order(block, exact, set(range(m)) - exact)
        return nearest(rows, middle(rows), b)

    return stack.columns(around)
