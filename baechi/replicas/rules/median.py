"""The coordinate median (marginal median; Xie et al., Generalized Byzantine-tolerant SGD, 1802.10116)."""

from torch import Tensor

from baechi.replicas.rules.columns import in_order
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["median", "middle", "middle_ranks"]


def median(stack: Stack) -> Rows:
    """Of each coordinate, the median of the finite vectors: of an even number, the mean of the middle two.

    It bears fewer than half, and also when other peers are hostile in each coordinate.
    """
    return stack.columns(lambda block: middle(in_order(block, middle_ranks(len(block)))))


def middle_ranks(m: int) -> tuple[int, int]:
    """The ranks of the middle two; of an odd number, one rank twice."""
    return (m - 1) // 2, m // 2


def middle(rows: list[Tensor]) -> Tensor:
    """The median, from rows in order."""
    low, high = middle_ranks(len(rows))
    return rows[low] if low == high else 0.5 * rows[low] + 0.5 * rows[high]
