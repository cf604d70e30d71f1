"""The mean: what one hostile peer can move anywhere."""

from baechi.replicas.rules.columns import added
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["mean"]


def mean(stack: Stack) -> Rows:
    """The mean of the finite vectors."""
    return stack.columns(lambda block: added(block.unbind(0)) / len(block))
