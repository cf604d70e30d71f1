"""Graph partitioning by METIS: parts of equal load that cut the least transfer time."""

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baechi.cost.problem import TOKEN, Arrays, Ints, Problem
from baechi.errors import BaechiError
from baechi.placers.base import Placer
from baechi.placers.ranks import mean_transfers
from baechi.placers.schedule import list_schedule
from baechi.placers.shares import held_bytes, shares
from baechi.placers.variants import Found, Placement
from baechi.sim.evaluate import Schedule

__all__ = ["Metis"]

Floats = NDArray[np.float64]
_TOTAL = 500_000_000  # what weights add up to; METIS may count in 32 bits
_FINER = 4
_MOST_PARTED = 1_000_000  # groups and edges, over all calls of METIS


@dataclass(frozen=True)
class Metis(Placer):
    """Multilevel k-way partitioning of the graph of colocation groups.

    A vertex weighs a blend of its share of all time and its share of all memory, an edge the mean
    time of the transfers along it; a device's part is to its speed and its memory. Parts may depend
    on each other in cycles: ops are scheduled one by one, not parts. There are partitions for all
    devices and for fewer, and finer ones whose parts the list scheduler spreads over the devices.

    Needs the package ``pymetis``.

    Args:
        seeds: how many seeds of METIS to try for each partition.

    Source: Karypis, Kumar, "A fast and high quality multilevel scheme for partitioning irregular
    graphs" (SIAM J. Sci. Comput. 1998).
    """

    name: ClassVar[str] = "metis"
    seeds: int = 2

    @staticmethod
    def available() -> bool:
        """Whether METIS is installed."""
        return importlib.util.find_spec("pymetis") is not None

    def schedules(self, problem: Problem, seed: int) -> Iterator[Found]:
        """Each partition once; finer ones as the list scheduler spreads them.

        Raises:
            BaechiError: B507 when METIS is not installed.
        """
        if not self.available():
            raise BaechiError("B507", "the placer 'metis' needs pymetis", help='pip install "baechi[metis]"')
        a = problem.arrays
        fastest = int(a.ticks.sum(axis=0).argmin())
        yield Schedule(np.full(len(a.rank), fastest, np.int64), a.order)
        if len(a.cap) == 1 or len(a.group_ptr) < 3:
            return
        mesh = _mesh(a)
        seen: set[bytes] = set()
        for parts, share, number in self._trials(a, mesh):
            part = _part(a, mesh, parts, share, seed * self.seeds + number)
            if part.tobytes() in seen:
                continue
            seen.add(part.tobytes())
            if parts <= len(a.cap):
                yield Placement(part[a.group])
            else:
                yield _spread(problem, part[a.group])

    def _trials(self, a: Arrays, mesh: "_Mesh") -> list[tuple[int, float, int]]:
        """Parts, share of time in the blend, and seed; of a very large graph only the first few."""
        devices = len(a.cap)
        counts = dict.fromkeys((devices, _FINER * devices, *(devices // k for k in (2, 4)), *range(2, min(devices, 5))))
        trials = [
            (parts, share, number)
            for number in range(self.seeds)
            for share in (1.0, 0.5, 0.0)
            for parts in counts
            if 2 <= parts < len(a.group_ptr)
        ]
        return trials[: max(1, _MOST_PARTED // (len(mesh.start) + len(mesh.other)))]


class _Mesh(NamedTuple):
    """The undirected graph of groups, as METIS takes it.

    Attributes:
        start, other, cut: neighbours of each group and what to cut between them costs.
        time, memory: (groups,) share of all work, and of all that persists or is made.
    """

    start: Ints
    other: Ints
    cut: Ints
    time: Floats
    memory: Floats


def _mesh(a: Arrays) -> _Mesh:
    groups = len(a.group_ptr) - 1
    source, reader = a.group[a.t_op[a.in_t]], a.group[np.repeat(np.arange(len(a.rank)), np.diff(a.in_ptr))]
    crossing = (source != reader) & (a.t_ticks[a.in_t] != TOKEN)
    # a tensor goes to a group once, however many ops of it read it
    sent = np.unique(np.column_stack([a.in_t, source, reader])[crossing], axis=0).reshape(-1, 3)
    ends = np.concatenate([sent[:, 1] * groups + sent[:, 2], sent[:, 2] * groups + sent[:, 1]])
    edge, of = np.unique(ends, return_inverse=True)
    ticks = np.bincount(of, np.tile(mean_transfers(a)[sent[:, 0]], 2), len(edge))
    start = np.concatenate([[0], np.cumsum(np.bincount(edge // groups, minlength=groups))]).astype(np.int64)
    time = np.bincount(a.group, a.ticks.min(axis=1), groups)
    return _Mesh(start, edge % groups, _weights(ticks) + 1, shares(time), shares(held_bytes(a)))


def _part(a: Arrays, mesh: _Mesh, parts: int, share: float, seed: int) -> Ints:
    """Part of each group; of at most as many parts as devices, the part's device."""
    pymetis: Any = importlib.import_module("pymetis")
    speed, room = 1.0 / np.maximum(a.ticks.sum(axis=0), 1.0), a.cap.astype(float)
    blend = share * shares(speed) + (1 - share) * shares(room)
    chosen = np.argsort(-blend, kind="stable")[:parts]
    if parts <= len(a.cap):
        target = shares(blend[chosen])
    else:
        chosen, target = np.arange(parts), np.full(parts, 1.0 / parts)
    weight = _weights(share * mesh.time + (1 - share) * mesh.memory) + 1
    return np.asarray(chosen[_parted(pymetis, mesh, weight, target, seed)], np.int64)


def _parted(pymetis: Any, mesh: _Mesh, weight: Ints, target: Floats, seed: int) -> Ints:
    """Part of each group, by bisection; METIS writes to stdout where it is asked for more parts than it finds."""
    part = np.zeros(len(weight), np.int64)
    options = pymetis.Options(seed=seed)
    source = np.repeat(np.arange(len(weight)), np.diff(mesh.start))
    todo = [(np.arange(len(weight)), source, mesh.other, mesh.cut, np.arange(len(target)))]
    while todo:
        members, source, other, cut, parts = todo.pop()
        half = len(parts) // 2
        if half == 0 or len(members) < 2:
            part[members] = parts[0]
            continue
        first = float(target[parts[:half]].sum() / target[parts].sum())
        start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=len(members)))])
        graph = pymetis.CSRAdjacency(start, other)
        found = pymetis.part_graph(
            2, graph, vweights=weight[members], eweights=cut, tpwgts=[first, 1 - first], options=options
        )
        side = np.asarray(found.vertex_part, np.int64)
        local = np.where(side == 0, np.cumsum(side == 0), np.cumsum(side)) - 1
        for k, chosen in enumerate((parts[:half], parts[half:])):
            inner = (side[source] == k) & (side[other] == k)
            todo.append((members[side == k], local[source[inner]], local[other[inner]], cut[inner], chosen))
    return part


def _spread(problem: Problem, part: Ints) -> Schedule:
    """The list schedule in which every part is one group."""
    a = problem.with_groups(part).arrays
    nowhere = np.full(len(a.group_ptr) - 1, -1, np.int64)
    made = list_schedule(a, np.full(len(part), -1, np.int64), nowhere, True)
    return Schedule(made.device, made.sequence)


def _weights(values: NDArray[Any]) -> Ints:
    return np.rint(shares(values) * _TOTAL).astype(np.int64) if len(values) else np.zeros(0, np.int64)
