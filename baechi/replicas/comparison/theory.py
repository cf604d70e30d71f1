"""The expected loss of a method in closed form, where the mean model follows the mean gradient of a quadratic."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from baechi.replicas.methods.descent import Descent
    from baechi.replicas.problems.base import Problem

__all__ = ["expected_losses"]


def expected_losses(
    method: "Descent", problem: "Problem", workers: int, seed: int, steps: Sequence[int]
) -> tuple[float, ...]:
    """E[f(mean_i x_i)] after each of some steps, over the noise of the gradients.

    On bowls of one curvature h the mean model of n workers is m' = (1 - rate h) m - rate noise / sqrt(n) away from
    the optimum, whatever is sent when: E m^2 is m's own square, shrunk, and a variance
    v' = (1 - rate h)^2 v + rate^2 sigma^2 / n; the loss is 1/2 sum_j h_j E m_j^2.

    Args:
        method: with its options.
        problem: that it ran on.
        workers: n, all who have data.
        seed: of the start.
        steps: local steps, from 0 and growing.

    Returns:
        As many losses as steps; none where there is no such form: another problem, curvatures that differ, a method
        that does not keep the mean, momentum.
    """
    from baechi.replicas.problems.quadratic import Quadratic

    if not method.keeps_mean or getattr(method, "rule", "mean") != "mean":
        return ()
    if method.momentum or method.clip or method.weight_decay:
        return ()
    if not isinstance(problem, Quadratic) or workers != problem.workers:
        return ()
    h = problem.hessians[0]
    if not torch.equal(problem.hessians, h.expand_as(problem.hessians)):
        return ()
    away, variance = problem.start(seed) - problem.optimum, torch.zeros_like(h)
    losses, wanted = {}, frozenset(steps)
    for t in range(max(steps) + 1):
        if t in wanted:
            losses[t] = float(0.5 * (h * (away * away + variance)).sum())
        rate = method.rate(t)
        shrink = 1 - rate * h
        away, variance = shrink * away, shrink * shrink * variance + (rate * problem.noise) ** 2 / workers
    return tuple(losses[t] for t in steps)
