"""Mending a schedule that is over a memory cap."""

from collections.abc import Iterator

import numpy as np

from baechi.cost.problem import Problem
from baechi.placers.improve import improve, tries_for
from baechi.sim.evaluate import Schedule, score

__all__ = ["repair"]


def repair(problem: Problem, schedule: Schedule, seed: int) -> Schedule:
    """Search for a schedule within all caps, from one start after the other until one is found.

    The starts: the schedule itself, its placement run in program order (which holds the fewest
    activations), and splits of program order by memory.

    Returns:
        The best schedule found; it may still be over a cap.
    """
    a = problem.arrays
    best = schedule
    for start in _starts(problem, schedule):
        mended = improve(a, start, tries=tries_for(a), seed=seed)
        best = min(best, mended, key=lambda one: score(a, one))
        if score(a, best)[0] == 0:
            break
    return best


def _starts(problem: Problem, schedule: Schedule) -> Iterator[Schedule]:
    a = problem.arrays
    order = a.order
    yield schedule
    yield Schedule(schedule.device, order)
    held = a.persistent + np.bincount(a.t_op, a.t_size, len(a.rank))
    filled = np.cumsum(held[order]) - held[order] / 2
    room = np.cumsum(a.cap / a.cap.sum()) * max(1.0, float(held.sum()))
    segment = np.empty(len(order), np.int64)
    segment[order] = np.minimum(np.searchsorted(room, filled, side="right"), len(a.cap) - 1)
    home = np.zeros(len(a.group_ptr) - 1, np.int64)
    home[a.group[order[::-1]]] = segment[order[::-1]]
    yield Schedule(home[a.group], order)
