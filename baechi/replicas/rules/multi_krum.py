"""Multi-Krum (Blanchard et al., Machine learning with adversaries, NeurIPS 2017)."""

import numpy as np

from baechi.errors import BaechiError
from baechi.replicas.rules.krum import krum_scores
from baechi.replicas.rules.stack import Rows, Stack

__all__ = ["multi_krum"]


def multi_krum(stack: Stack, *, f: int, m: int | None = None) -> Rows:
    """The mean of the m vectors that Krum likes best.

    Args:
        stack: n vectors; those left out as not finite are never chosen, and count among the f.
        f: hostile peers to bear, as `krum`.
        m: how many to take, also called k; n - f when None.

    Raises:
        BaechiError: B822 when m is not 1 to n.
    """
    wanted = stack.peers - f if m is None else m
    if not 1 <= wanted <= stack.peers:
        what = f"rule 'multi-krum': the best {wanted} of {stack.peers} vectors"
        raise BaechiError("B822", what, help=f"give m from 1 to {stack.peers}")
    best = np.argsort(krum_scores(stack, f), kind="stable")[:wanted]
    weights = np.zeros(len(stack))
    weights[best] = 1.0 / len(best)
    return stack.combination(weights)
