"""The coordinate trimmed mean (Xie et al., Phocas, 1805.09682, definition of Trmean_b; Yin et al., 1803.01498)."""

from torch import Tensor

from baechi.replicas.rules.columns import added, in_order
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["trimmed", "trimmed_mean"]


def trimmed_mean(stack: Stack, *, b: int) -> Rows:
    """Of each coordinate, the mean without the b largest and the b smallest values.

    Args:
        stack: m vectors; those left out as not finite count among the b.
        b: hostile peers to bear, 2 b < m; also when they are others in each coordinate.
    """
    b = stack.bears(b)
    return stack.columns(lambda block: trimmed(in_order(block, (), range(b, len(block) - b)), b))


def trimmed(rows: list[Tensor], b: int) -> Tensor:
    """The mean of ranks b to m - b - 1."""
    return added(rows[b : len(rows) - b]) / (len(rows) - 2 * b)
