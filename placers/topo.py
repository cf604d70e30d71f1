"""m-TOPO: fill one device after the other in topological order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baechi.cost.jit import kernel
from baechi.cost.problem import Arrays, Ints, Problem
from baechi.placers.base import Placer
from baechi.placers.variants import Placement

__all__ = ["Topo"]


@dataclass(frozen=True)
class Topo(Placer):
    """Memory-constrained topological placement.

    Every device takes ops in topological order until its share is full, then the next one goes on:

        cap = (sum_i d_i) / n + max_i d_i

    where d_i is what op i persists, makes and needs while it runs. Devices of unequal memory get
    shares in proportion. A colocation group goes where its first op goes.

    The original never looks at the devices' real caps; here the simulator does, and a second try
    fills each device only up to its share of what is needed in all.

    Source: Jeon et al., "Baechi", section 2.2.
    """

    name: ClassVar[str] = "m-topo"

    def schedules(self, problem: Problem, seed: int) -> Iterator[Placement]:
        """The paper's shares, and shares without the slack of the largest op."""
        a = problem.arrays
        need = _needs(a)
        share = need.sum() * a.cap / a.cap.sum()
        for slack in (int(need.max(initial=0)), 0):
            yield Placement(_fill(a, need, share.astype(np.int64) + slack)[a.group])


def _needs(a: Arrays) -> Ints:
    """d of each group: what its ops persist and make, and the most that one of them needs while it runs."""
    groups = len(a.group_ptr) - 1
    made = np.bincount(a.t_op, a.t_size, len(a.rank)).astype(np.int64)
    need = np.bincount(a.group, a.persistent + made, groups).astype(np.int64)
    temp = np.zeros(groups, np.int64)
    np.maximum.at(temp, a.group, a.temp)
    return need + temp


@kernel
def _fill(a: Arrays, need: Ints, share: Ints) -> Ints:
    home = np.full(len(need), -1, np.int64)
    device, used = 0, 0
    for i in a.order:
        g = a.group[i]
        if home[g] >= 0:
            continue
        if used + need[g] > share[device] and device < len(share) - 1:
            device += 1
            used = 0
        home[g] = device
        used += need[g]
    return home
