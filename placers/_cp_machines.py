"""Latency when transfers cost nothing and all devices are equal: moments only, devices follow.

This is P|prec|Cmax of scheduling theory. Any schedule with at most as many ops at a time as there are
devices can be given devices, first come first served.
"""

from collections.abc import Callable, Iterator

import numpy as np
from ortools.sat.python import cp_model

from baechi.cost.problem import Arrays, Ints
from baechi.placers._cp_net import Net
from baechi.placers._cp_place import Literal
from baechi.placers._cp_windows import Windows
from baechi.sim.evaluate import Schedule
from baechi.sim.state import Run

__all__ = ["Machines", "is_pure"]


def is_pure(a: Arrays, net: Net) -> bool:
    """Whether only the moments matter: equal devices, free transfers, no groups."""
    alone = len(a.group_ptr) - 1 == len(a.rank)
    return alone and len(net.alike) == 1 and max(net.farthest, default=0) == 0


class Machines:
    """Ops to moments so that the last one ends soonest.

    Args:
        net: the problem.
        w: what holds in every plan of at most its horizon.
        low: a bound on the objective.
    """

    def __init__(self, net: Net, w: Windows, low: int) -> None:
        self.net, self.model = net, cp_model.CpModel()
        ticks = net.fastest
        self.end = self.model.new_int_var(min(low, w.horizon), w.horizon, "end")
        self.start = [
            self.model.new_int_var(int(w.head[i]), w.horizon - int(w.tail[i]) - ticks[i], f"start{i}")
            for i in range(len(ticks))
        ]
        self.stop = [start + k for start, k in zip(self.start, ticks, strict=True)]
        for stop, tail in zip(self.stop, w.tail.tolist(), strict=True):
            self.model.add(stop + tail <= self.end)
        running = [
            self.model.new_fixed_size_interval_var(start, k, f"op{i}")
            for i, (start, k) in enumerate(zip(self.start, ticks, strict=True))
        ]
        self.model.add_cumulative(running, [1] * len(running), net.devices)
        for i, j in zip(*np.nonzero(w.lag >= 0), strict=True):
            if (int(i), int(j)) in net.waits or w.lag[i, j] > _through(w, ticks, int(i), int(j)):
                self.model.add(self.start[j] >= self.stop[i] + int(w.lag[i, j]))
        self.model.minimize(self.end)

    def schedule(self, value: Callable[[Literal], int]) -> Schedule:
        """What a solution decides; each op goes to the device that has been free for the shortest time."""
        start, stop = ([value(one) for one in many] for many in (self.start, self.stop))
        sequence = sorted(range(len(start)), key=lambda i: (start[i], stop[i], self.net.arrays.rank[i]))
        free = [0] * self.net.devices
        device = np.zeros(len(start), np.int64)
        for i in sequence:
            ready = [d for d, until in enumerate(free) if until <= start[i]] or [int(np.argmin(free))]
            device[i] = max(ready, key=lambda d: (free[d], -d))
            free[device[i]] = max(free[device[i]], start[i]) + stop[i] - start[i]
        return Schedule(device, np.array(sequence, np.int64))

    def hints(self, device: Ints, run: Run) -> Iterator[tuple[Literal, int]]:
        """A simulated schedule as values of variables."""
        for start, ticks in zip(self.start, run.op_start.tolist(), strict=True):
            yield start, ticks // self.net.unit


def _through(w: Windows, ticks: list[int], i: int, j: int) -> int:
    """Least time from `i` to `j` over the ops between them."""
    between = (w.lag[i] >= 0) & (w.lag[:, j] >= 0)
    times = (w.lag[i] + np.array(ticks) + w.lag[:, j])[between]
    return int(times.max()) if len(times) else -1
