"""Sign flip: the opposite of one's own vector, in Zeno's experiments called a bit flip (Xie et al., ICML 2019)."""

from baechi.replicas.attacks.own import own_rows
from baechi.replicas.rules.stack import Rows, Stack, Vectors

__all__ = ["sign_flip"]


def sign_flip(honest: Stack, q: int, *, scale: float = 1.0, own: Vectors | None = None) -> Rows:
    """Each sends -scale times its own vector."""
    return [part.mul_(-scale) for part in own_rows(honest, q, own)]
