"""Label flip: honest gradients of false labels, as from poisoned data."""

from baechi.replicas.attacks.own import given
from baechi.replicas.rules.stack import Rows, Stack, Vectors

__all__ = ["label_flip"]


def label_flip(honest: Stack, q: int, *, flipped: Vectors) -> Rows:
    """Each sends its gradient of flipped labels.

    Args:
        honest: the honest vectors.
        q: hostile peers.
        flipped: (q, d) as the honest vectors: such as `Problem.gradient` gives with flipped=True, where class c
            becomes classes - 1 - c.

    Raises:
        BaechiError: B823 when they do not fit.
    """
    return [part.clone() for part in given(honest, q, flipped, "flipped")]
