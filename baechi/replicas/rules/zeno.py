"""Zeno: trust what makes the loss on a few trusted samples smaller (Xie et al., ICML 2019).

score(u) = f_r(x) - f_r(x - gamma u) - rho |u|^2; the mean of the m - b best.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from baechi.errors import BaechiError
from baechi.replicas.rules.stack import Array, Rows, Stack, Vectors

__all__ = ["zeno", "zeno_scores"]

_NORMS = ("sum", "mean")


def zeno(
    stack: Stack,
    *,
    b: int,
    loss: Callable[[Any], float],
    x: Vectors,
    gamma: float,
    rho: float | None = None,
    rho_norm: str = "sum",
) -> Rows:
    """The mean of the m - b vectors with the best scores.

    Args:
        stack: m vectors; those left out as not finite, or whose loss is not, are never chosen, and count among the b.
        b: hostile peers to bear, up to m - 1: also a majority.
        loss: f_r: from parameters, in the form that the vectors have, to the loss on the samples of this round.
        x: the parameters now, (d,), or shards of them.
        gamma: the learning rate.
        rho: weight of the vector's length; gamma / 200 when None.
        rho_norm: |u|^2 is a `sum`, as in the paper, or a `mean` over the coordinates, as in its authors' code.

    Raises:
        BaechiError: B822 when an option is out of its range, B823 when x does not fit the vectors or no
            candidate has a finite loss.
    """
    scores = zeno_scores(stack, loss=loss, x=x, gamma=gamma, rho=rho, rho_norm=rho_norm)
    finite = int(np.isfinite(scores).sum())
    if not finite:
        raise BaechiError("B823", "rule 'zeno': no peer's step has a finite loss", help="the parameters have diverged")
    best = np.argsort(-scores, kind="stable")[: min(len(stack) - stack.bears(b), finite)]
    weights = np.zeros(len(stack))
    weights[best] = 1.0 / len(best)
    return stack.combination(weights)


def zeno_scores(
    stack: Stack,
    *,
    loss: Callable[[Any], float],
    x: Vectors,
    gamma: float,
    rho: float | None = None,
    rho_norm: str = "sum",
) -> Array:
    """(kept,): the scores of the finite vectors; -inf where the loss is not finite."""
    if rho_norm not in _NORMS:
        raise BaechiError("B822", f"rule 'zeno': no rho_norm '{rho_norm}'", help="one of: " + ", ".join(_NORMS))
    rho = gamma / 200 if rho is None else rho
    if not gamma > 0 or rho < 0:
        raise BaechiError("B822", f"rule 'zeno': gamma {gamma:g}, rho {rho:g}", help="a positive gamma, a rho of 0 up")
    here = stack.fitting(x, "x")
    size = sum(part.numel() for part in here) if rho_norm == "mean" else 1
    before, scores = float(loss(x)), np.empty(len(stack))
    for i in range(len(stack)):
        stepped, square = [], 0.0
        for part, vector in zip(here, stack.row(i), strict=True):
            square += float(torch.linalg.vector_norm(vector, dtype=torch.float64).square())
            stepped.append(part - gamma * vector.to(part))
        scores[i] = before - float(loss(stack.returned(stepped))) - rho * square / size
    return np.where(np.isfinite(scores), scores, -np.inf)
