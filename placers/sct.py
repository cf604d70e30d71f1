"""m-SCT: list scheduling in which a device waits for the favourite child of what it just ran."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baechi.cost.problem import LINK, TOKEN, Arrays, Ints, Problem
from baechi.placers.base import Placer
from baechi.placers.etf import scheduled
from baechi.placers.relax import favourites
from baechi.sim.evaluate import Schedule

__all__ = ["Sct", "favourite_children"]


@dataclass(frozen=True)
class Sct(Placer):
    """Memory-constrained small communication times.

    A linear programme (see `favourites`) finds for each op the child that should follow it on its
    device at once. Then ops are list scheduled as by m-ETF, with one more state: a device that
    ended op i, whose favourite child is ready and can start nowhere sooner, is awake: it runs only
    an urgent op, one whose inputs could be on any device by now, or the child.

    The original counts an op as urgent only when no device that could take it is busy; here, as in
    Hanen and Munier, when its inputs could have reached any device.

    Args:
        threshold: an edge is a favourite when the programme's x is below it; classically 0.5.

    Source: Jeon et al., "Baechi", section 2.3; Hanen and Munier, "An approximation algorithm for
    scheduling dependent tasks on m processors with small communication delays" (ETFA 1995).
    """

    name: ClassVar[str] = "m-sct"
    threshold: float = 0.1

    def schedules(self, problem: Problem, seed: int) -> Iterator[Schedule]:
        """The list schedule, its transfers as it planned them and as the simulator would."""
        yield from scheduled(problem, favourite_children(problem.arrays, self.threshold))


def favourite_children(a: Arrays, threshold: float = 0.1) -> Ints:
    """Favourite child of each op, or -1.

    An op's time is that on its fastest device; an edge's is that of all tensors that flow along
    it, on the mean link.
    """
    reader = np.repeat(np.arange(len(a.rank)), np.diff(a.in_ptr))
    edge, at = np.unique(a.t_op[a.in_t] * len(a.rank) + reader, return_inverse=True)
    time = np.bincount(at, _mean_transfer(a)[a.in_t], len(edge)).astype(np.int64)
    source, destination = edge // max(1, len(a.rank)), edge % max(1, len(a.rank))
    found = favourites(a.ticks.min(axis=1), source, destination, time, threshold=threshold)
    return np.asarray(found.child, np.int64)


def _mean_transfer(a: Arrays) -> Ints:
    apart = ~np.eye(len(a.cap), dtype=np.bool_)
    if not apart.any():
        return np.zeros(len(a.t_op), np.int64)
    linked = a.latency[apart].mean() + a.t_bytes * a.ticks_per_byte[apart].mean()
    times: Ints = np.select([a.t_ticks == LINK, a.t_ticks == TOKEN], [np.rint(linked), 0], a.t_ticks).astype(np.int64)
    return times
