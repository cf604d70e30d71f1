"""A smaller choice for an exact search: colocation groups that a schedule has on one device, drawn together."""

import numpy as np

from baechi.cost.problem import Arrays
from baechi.cost.tensors import buckets
from baechi.sim.evaluate import Schedule

__all__ = ["drawn_together"]


def drawn_together(a: Arrays, schedule: Schedule, groups: int) -> Arrays:
    """The same problem with at most about `groups` groups; `schedule` remains one of its schedules.

    Neighbours on one device are merged, the dearest tensors first, while no cluster gets more than
    twice its share of the work.

    Args:
        a: the problem.
        schedule: what a placer found.
        groups: how many groups to leave.
    """
    label = np.arange(len(a.group_ptr) - 1)
    work = np.bincount(a.group, a.ticks.min(axis=1), len(label))
    home = np.zeros(len(label), np.int64)
    home[a.group] = schedule.device
    limit = 2 * work.sum() / groups
    left = len(label)
    for g, h in _neighbours(a):
        one, other = _root(label, g), _root(label, h)
        if left <= groups:
            break
        if one != other and home[one] == home[other] and work[one] + work[other] <= limit:
            label[max(one, other)] = min(one, other)
            work[min(one, other)] += work[max(one, other)]
            left -= 1
    roots = np.array([_root(label, g) for g in range(len(label))])
    _, number = np.unique(roots[a.group], return_inverse=True)
    ptr, members = buckets(number, int(number.max()) + 1)
    return a._replace(group=number.astype(np.int64), group_ptr=ptr, group_op=members)


def _neighbours(a: Arrays) -> list[tuple[int, int]]:
    """Pairs of groups of which one reads a tensor of the other, the dearest tensor first."""
    declared = np.where(a.t_ticks >= 0, a.t_ticks, a.t_bytes * float(a.ticks_per_byte.max()))
    reader = np.repeat(np.arange(len(a.rank)), np.diff(a.in_ptr))
    order = np.argsort(-declared[a.in_t], kind="stable")
    pairs = zip(a.group[a.t_op[a.in_t[order]]].tolist(), a.group[reader[order]].tolist(), strict=True)
    return [(g, h) for g, h in pairs if g != h]


def _root(label: np.ndarray, g: int) -> int:
    while label[g] != g:
        g = int(label[g])
    return g
