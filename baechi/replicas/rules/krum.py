"""Krum (Blanchard et al., Machine learning with adversaries, NeurIPS 2017)."""

import numpy as np

from baechi.replicas.rules.stack import Array, Rows, Stack

__all__ = ["krum", "krum_scores"]


def krum(stack: Stack, *, f: int) -> Rows:
    """The vector whose n - f - 2 nearest others are nearest to it, by the sum of squared distances.

    Args:
        stack: n vectors; those left out as not finite are never chosen, and count among the f.
        f: hostile peers to bear. The proof needs n > 2 f + 2; with fewer peers one neighbour at least is counted.
            Not borne: peers that are hostile in some coordinates each.
    """
    chosen = np.zeros(len(stack))
    chosen[np.argmin(krum_scores(stack, f))] = 1.0
    return stack.combination(chosen)


def krum_scores(stack: Stack, f: int) -> Array:
    """(kept,): the sum of the squared distances to the nearest others; the smaller, the better."""
    neighbours = max(1, len(stack) - stack.bears(f) - 2)
    in_order = np.sort(stack.squared_distances(), axis=1)
    scores: Array = in_order[:, 1 : neighbours + 1].sum(1)
    return scores
