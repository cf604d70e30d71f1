"""Teams: a few devices work together on one part of the step, then hand over to the next few.

A training step is long and narrow: two or three devices side by side are often all that it can use, and more only spread
its tensors; but two or three may not have the memory. So the devices are dealt out to teams of equal size. A step is
planned for one team, each member of which has the memory of its peers in all the teams. What a member was given is
then put in a line, by forward order, and cut among its peers: each team has one part of the model, forward and backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import Ints, Problem
from baechi.ir.cluster import UNLIMITED_BYTES
from baechi.placers.base import Placer, best_of
from baechi.placers.effort import visits
from baechi.placers.etf import Etf
from baechi.placers.heft import Heft
from baechi.placers.sct import Sct
from baechi.placers.shares import held_bytes
from baechi.placers.stages import labels_of, positions
from baechi.placers.variants import variants
from baechi.sim.evaluate import Schedule, evaluate

__all__ = ["Teams"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SIZES = (2, 3, 4, 8, 16)
_WORK = 2e6  # visits over all sizes
_ROUNDS = 6
_SQUEEZE = 0.97
_PLANNERS: tuple[Placer, ...] = (Heft(tries=0), Etf(), Sct())


@dataclass(frozen=True)
class Teams(Placer):
    """Few devices at a time, one team after the other; of fewer than three devices, the step on all of them.

    Each team size, from two up to fewer than all devices, is planned by HEFT, m-ETF and m-SCT. The best plan of
    each uses as few teams as have the memory for it.

    Example:
        >>> from baechi.ir.cluster import Cluster, Device
        >>> from baechi.models.graphs import figure_2
        >>> three = Cluster(tuple(Device(name, 8) for name in "abc"), contention="parallel")
        >>> sorted(set(Teams().place(figure_2(), three).device.values()))
        ['a', 'b']
    """

    name: ClassVar[str] = "teams"
    coarsens: ClassVar[bool] = False

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """For each size of team and planner, the best plan cut among teams, one more of them until it fits."""
        a = problem.arrays
        devices = len(a.cap)
        sizes = [size for size in _SIZES if size < devices] or [devices]
        line = _Line(problem)
        for size in sizes[: max(1, int(_WORK / visits(a)))]:
            team = _team(problem, size)
            views = tuple(variants(team))
            for planner in _PLANNERS:
                lifted = chain.from_iterable(planner.lifted(view, seed) for view in views)
                yield from line.cuts(team, best_of(team, lifted).schedule)


def _team(problem: Problem, size: int) -> Problem:
    """The step on the first team alone, each of whose members has the memory of its peers in all teams."""
    cluster = problem.cluster
    first = np.arange(size)
    caps = [min(UNLIMITED_BYTES, int(problem.arrays.cap[member::size].sum())) for member in first]
    members = tuple(replace(d, memory_bytes=cap) for d, cap in zip(cluster.devices, caps, strict=False))
    names = {device.name for device in members}
    links = {pair: link for pair, link in cluster.links.items() if names.issuperset(pair)}
    return problem.on_devices(replace(cluster, devices=members, links=links), first)


class _Line:
    """The groups of a step in a line, by forward order.

    Attributes:
        groups: from first to last.
        held: (groups,) bytes that each one keeps or makes.
    """

    def __init__(self, problem: Problem) -> None:
        self.a = a = problem.arrays
        self.groups = np.argsort(positions(a, labels_of(problem)), kind="stable")
        self.held = held_bytes(a)

    def cuts(self, team: Problem, schedule: Schedule) -> Iterator[Schedule]:
        """The schedule of a team, with what each member has cut among its peers.

        As few peers as have the memory, then one more; and when all take part, less to those that were over.
        """
        a, size = self.a, len(team.cluster)
        need = evaluate(team.arrays, schedule)[0].peak
        peers = [np.arange(member, len(a.cap), size) for member in range(size)]
        used = [
            1 + int(np.searchsorted(np.cumsum(a.cap[own])[:-1], peak)) for own, peak in zip(peers, need, strict=True)
        ]
        room = a.cap.astype(float)
        for _ in range(_ROUNDS):
            device = np.empty(len(a.rank), np.int64)
            for member, (own, count) in enumerate(zip(peers, used, strict=True)):
                here = schedule.device == member
                device[here] = self._dealt(here, own[:count], room)[a.group[here]]
            yield Schedule(device, schedule.sequence)
            peak = evaluate(a, Schedule(device, schedule.sequence))[0].peak
            over = peak > a.cap
            if not over.any():
                return
            for member, own in enumerate(peers):
                if over[own].any():
                    used[member] = min(used[member] + 1, len(own))
            room[over] *= _SQUEEZE * a.cap[over] / peak[over]

    def _dealt(self, here: Bools, own: Ints, room: Floats) -> Ints:
        """(groups,) device of each group, of those with ops `here`: in the line, cut by memory, in shares like `room`."""
        a = self.a
        mine = np.zeros(len(self.groups), np.bool_)
        mine[a.group[here]] = True
        load = np.where(mine, self.held, 0.0)[self.groups]
        middle = np.cumsum(load) - load / 2
        ends = np.cumsum(room[own]) * (load.sum() / room[own].sum())
        device = np.empty(len(self.groups), np.int64)
        device[self.groups] = own[np.minimum(np.searchsorted(ends, middle, side="right"), len(own) - 1)]
        return device
