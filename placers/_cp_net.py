"""The placement problem as an exact solver reads it: whole numbers in a unit, ops, groups and who waits for whom.

Times are rounded down to the unit, so that every schedule of the simulator, rounded down, is a
schedule here: what is proved of the rounded problem holds for the real one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np

from baechi.cost.problem import LINK, TOKEN, UNLIMITED_CORES, Arrays, Ints

__all__ = ["Net", "net_of", "slowest"]

_MOST_UNITS = 1 << 40
"""The longest horizon that the solver is given; longer ones are rounded to a coarser unit."""


@dataclass(frozen=True)
class Net:
    """A problem in whole units of time.

    Attributes:
        arrays: what it was made from.
        unit: ticks of one unit.
        ticks: for each op, its units on each device.
        links: for each tensor, its units by source and destination.
        edges: (op, op, tensor) for each input.
        least: (ops, ops) units that are known to pass from the end of an op to the start of another.
    """

    arrays: Arrays
    unit: int
    ticks: Sequence[Sequence[int]]
    links: Sequence[Sequence[Sequence[int]]]
    edges: Sequence[tuple[int, int, int]]
    least: Ints

    @cached_property
    def group(self) -> list[int]:
        """Colocation group of each op."""
        return [int(g) for g in self.arrays.group]

    @cached_property
    def order(self) -> list[int]:
        """Ops in topological order."""
        return [int(i) for i in self.arrays.order]

    @property
    def devices(self) -> int:
        """How many there are."""
        return len(self.arrays.cap)

    @cached_property
    def fastest(self) -> list[int]:
        """Units of each op where it is fastest."""
        return [min(row) for row in self.ticks]

    @cached_property
    def nearest(self) -> list[int]:
        """Units of each tensor over its fastest link."""
        pairs = [(s, d) for s in range(self.devices) for d in range(self.devices) if s != d]
        return [min((rows[s][d] for s, d in pairs), default=0) for rows in self.links]

    @cached_property
    def farthest(self) -> list[int]:
        """Units of each tensor over its slowest link."""
        pairs = [(s, d) for s in range(self.devices) for d in range(self.devices) if s != d]
        return [max((rows[s][d] for s, d in pairs), default=0) for rows in self.links]

    @cached_property
    def waits(self) -> dict[tuple[int, int], int]:
        """For each op that reads another's tensors: the least wait between them when they are apart."""
        found: dict[tuple[int, int], int] = {}
        for i, j, t in self.edges:
            found[i, j] = max(found.get((i, j), 0), self.nearest[t])
        return found

    @cached_property
    def alike(self) -> list[list[int]]:
        """Devices in classes: two of a class can change places in any plan."""
        classes: list[list[int]] = []
        for d in range(self.devices):
            for members in classes:
                if _interchangeable(self, members[0], d):
                    members.append(d)
                    break
            else:
                classes.append([d])
        return classes


def net_of(a: Arrays, horizon: int, least: Ints) -> Net:
    """The problem in units of which `horizon` ticks are at most 2**40.

    Args:
        a: the problem.
        horizon: the longest plan that matters.
        least: (ops, ops) ticks that are known to pass from the end of an op to the start of another.
    """
    links = [_links(a, t) for t in range(len(a.t_op))]
    numbers = [a.ticks.ravel(), *(rows.ravel() for rows in links)]
    common = gcd(*(int(n) for array in numbers for n in np.unique(array))) or 1
    unit = common * max(1, -(-horizon // (common * _MOST_UNITS)))
    reader = np.repeat(np.arange(len(a.rank)), np.diff(a.in_ptr))
    edges = [(int(a.t_op[t]), int(j), int(t)) for j, t in zip(reader, a.in_t, strict=True)]
    return Net(a, unit, (a.ticks // unit).tolist(), [(rows // unit).tolist() for rows in links], edges, least // unit)


def _links(a: Arrays, t: int) -> Ints:
    """Ticks of a tensor by source and destination, as the simulator counts them; none for a token."""
    if a.t_ticks[t] == TOKEN:
        ticks = np.zeros_like(a.latency)
    elif a.t_ticks[t] != LINK:
        ticks = np.full(a.latency.shape, a.t_ticks[t])
    else:
        ticks = a.latency + np.rint(a.t_bytes[t] * a.ticks_per_byte).astype(np.int64)
    np.fill_diagonal(ticks, 0)
    return np.asarray(ticks, np.int64)


def slowest(a: Arrays) -> Ints:
    """Ticks of each tensor over its slowest link."""
    return np.array([_links(a, t).max() for t in range(len(a.t_op))], np.int64)


def _interchangeable(net: Net, d: int, e: int) -> bool:
    a = net.arrays
    if a.cap[d] != a.cap[e] or a.pays[d] != a.pays[e] or (a.ticks[:, d] != a.ticks[:, e]).any():
        return False
    shared = min(a.cores[a.host[d]], a.cores[a.host[e]]) < UNLIMITED_CORES
    if shared and (a.host[d] != a.host[e] or a.threads[d] != a.threads[e]):
        return False
    swapped = np.arange(net.devices)
    swapped[[d, e]] = e, d
    off = ~np.eye(net.devices, dtype=bool)
    links = ((m[np.ix_(swapped, swapped)] == m)[off].all() for m in (a.latency, a.ticks_per_byte))
    return all(links)
